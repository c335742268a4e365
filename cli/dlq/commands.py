"""`headrace dlq`: find dead letters, look into them, replay them, take them out."""

import contextlib
import heapq
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli.context import ROOT, err, fail, out, settings
from cli.dlq.filters import COLUMNS, Filter, moment
from cli.kafka import consumer_of, offsets_of, values_in
from headrace import event, keyfile, keys
from headrace.dead_letter import DeadLetter, Invalid, Reason, Unavailable
from headrace.kafka import DEAD_LETTER_TOPICS
from headrace.registry import PlanError, Registry

if TYPE_CHECKING:
    from cli.dlq.judge import Judge
    from cli.dlq.letters import Letters
    from cli.dlq.replay import Verdict

app = typer.Typer(no_args_is_help=True, help="Dead letters: find them, look into them, replay them, take them out.")

SERVICES = ("collector", "enricher", "realtime-loader", "batch-loader", "scoring-worker")
_MOST_KINDS = 10_000  # that are counted each by itself: anybody may make up sources

Service = Annotated[
    list[str] | None, typer.Option(help=f"Refused by {', '.join(SERVICES)}. May be given more than once, as may those below.")
]
Reasons = Annotated[list[str] | None, typer.Option(help="Refused for this reason, such as schema_invalid.")]
Type = Annotated[list[str] | None, typer.Option(help="Event type, as it was sent.")]
Source = Annotated[list[str] | None, typer.Option(help="Source of the event.")]
Id = Annotated[list[str] | None, typer.Option(help="Id of the dead letter.")]
Since = Annotated[str | None, typer.Option(help="Refused at or after: 2026-01-31, 2026-01-31T12:00:00Z, or 90m, 6h, 2d ago.")]
Until = Annotated[str | None, typer.Option(help="Refused before; as above.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@app.command(name="list")
def list_(  # noqa: PLR0917 - options of a command
    service: Service = None,
    reason: Reasons = None,
    type: Type = None,
    source: Source = None,
    id: Id = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="So many, the newest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the newest dead letters."""
    wanted = _filter(service, reason, type, source, id, since, until)
    columns = ("dead_letter_id", "rejected_at", "service", "reason", "type", "source", "id", "subject", "detail")
    with _lake() as letters:
        newest = heapq.nlargest(limit, letters.distinct(wanted, columns), key=lambda row: (row["rejected_at"], row["dead_letter_id"]))
    if as_json:
        for row in newest:
            _print_json(row)
        return
    table = Table(
        "dead letter", "refused at", "by", "reason", "type", "source", "id", "detail", box=None, pad_edge=False, header_style="bold"
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    for row in newest:
        cells = [row["dead_letter_id"], _second(row["rejected_at"]), row["service"], row["reason"]]
        table.add_row(*(Text(cell or "") for cell in (*cells, row["type"], row["source"], row["id"], row["detail"])))
    out.print(table if newest else "no dead letters of that kind in the lake")


@app.command()
def stats(  # noqa: PLR0917
    service: Service = None,
    reason: Reasons = None,
    type: Type = None,
    source: Source = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Count dead letters by who refused them, reason, type, source and day."""
    wanted = _filter(service, reason, type, source, None, since, until)
    names = ("service", "reason", "type", "source", "day")
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    with _lake() as letters:
        for row in letters.distinct(wanted, ("service", "reason", "type", "source", "rejected_at")):
            row["day"] = row["rejected_at"].date().isoformat()
            for name in names:
                kind, counter = row[name] or "(none)", counts[name]
                counter[kind if kind in counter or len(counter) < _MOST_KINDS else "(others)"] += 1
    total = counts["reason"].total()
    if as_json:
        _print_json({"total": total, **{name: dict(counter.most_common()) for name, counter in counts.items()}})
        return
    for name, counter in counts.items() if total else ():
        table = Table(name, "dead letters", box=None, pad_edge=False, header_style="bold")
        table.columns[1].justify = "right"
        shown = sorted(counter.items(), reverse=True) if name == "day" else counter.most_common()
        for kind, number in shown[:20]:
            table.add_row(Text(kind), f"{number:,}")
        if len(shown) > 20:
            table.add_row(f"and {len(shown) - 20:,} more", f"{sum(number for _, number in shown[20:]):,}", style="dim")
        out.print(table, "")
    out.print(f"{total:,} dead letter{'' if total == 1 else 's'}", style="dim", highlight=False)


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="Id of the dead letter.")],
    raw: Annotated[bool, typer.Option("--raw", help="Only the original bytes, as they are.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: the event, what was wrong, where it was refused, the original bytes, and what a replay would say now."""
    with _lake() as letters:
        letter = next(letters.each(Filter(id=(id,))), None)
    if letter is None:
        fail(f"no dead letter {id} in the lake (it holds what came some seconds ago and before): `headrace dlq list` shows ids")
    if raw:
        sys.stdout.buffer.write(letter.payload_bytes())
        return
    now = _said_now(letter)
    if as_json:
        _print_json({name: getattr(letter, name) for name in COLUMNS} | {"replay": now})
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    at = f", partition {letter.origin_partition}, offset {letter.origin_offset}" if letter.origin_partition is not None else ""
    lines = {
        "dead letter": letter.dead_letter_id,
        "refused by": f"{letter.service}, {letter.rejected_at}",
        "came from": f"{letter.origin_topic or '(not known)'}{at}",
        "reason": letter.reason,
        "detail": letter.detail,
        "type": letter.type,
        "source": letter.source,
        "id": letter.id,
        "subject": letter.subject,
        "time": letter.time,
        "received at": letter.received_at,
        "write key": letter.key_id,
        "a replay now": now,
    }
    for name, value in lines.items():
        table.add_row(Text(name, "bold"), Text(value or "-"))
    out.print(table)
    out.print(
        Text(f"\noriginal bytes ({len(letter.payload_bytes()):,}{', in base64' if letter.payload_encoding == 'base64' else ''}):", "bold")
    )
    out.print(Text(_readable(letter)), soft_wrap=True)


@app.command()
def replay(  # noqa: PLR0917
    service: Service = None,
    reason: Reasons = None,
    type: Type = None,
    source: Source = None,
    id: Id = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Replay so many at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, and send and record nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also events that were refused again after a replay.")] = False,
    rate: Annotated[float, typer.Option(min=0, max=1_000_000, help="Events in a second at most; 0: as fast as it goes.")] = 2000,
    as_json: AsJson = False,
) -> None:
    """Check dead letters again and send those that pass. What was replayed once is not sent again, however often this is run."""
    from cli.dlq.replay import DONE, LOOPING, REFUSED, REPLAYED, Replayer, sent_before, verdicts

    wanted = _filter(service, reason, type, source, id, since, until)
    env = settings()
    judge = _judge(env, again)
    why: Counter[str] = Counter()
    replayer = None
    try:
        replayer = None if dry_run else Replayer(env)
        done = sent_before(env)
        with _lake() as letters, _bar(_number(letters, wanted)) as progress:
            _say_what_is_not_there_yet(env, letters)

            def noted() -> "Iterator[Verdict]":
                kinds, left = Counter[str](), limit
                for verdict in verdicts(letters.each(wanted), judge, done):
                    kind = verdict.problem.reason if verdict.problem else verdict.outcome
                    kinds[kind] += 1
                    if verdict.problem:
                        why[kind] += 1
                    if verdict.why and kinds[kind] == 1:
                        progress(f"{verdict.letter.dead_letter_id}: {verdict.why}")
                    yield verdict
                    if left is not None and verdict.outcome == REPLAYED and not (left := left - 1):
                        return

            if replayer is None:
                total = Counter[str]()
                for verdict in noted():
                    total[verdict.outcome] += 1
                    progress(total)
            else:
                replayer.begin(wanted.said() | ({"limit": str(limit)} if limit else {}) | ({"again": "yes"} if again else {}))
                total = replayer.send(noted(), rate, progress)
                replayer.end(total)
    except KafkaException as error:
        done_what = "what was sent until now is recorded; run the same again for the rest" if replayer else "`make status` shows what runs"
        fail(f"Kafka: {error.args[0].str()}: {done_what}")
    run = replayer.run if replayer else None
    if as_json:
        _print_json(
            {"run": run, "dry_run": dry_run, **{name: total[name] for name in (REPLAYED, REFUSED, LOOPING, DONE)}, "refused_for": why}
        )
        return
    out.print(_sentence(total, why, run), highlight=False, markup=False, soft_wrap=True)


@app.command(name="replays")
def replays_(as_json: AsJson = False) -> None:
    """Show the replays there were: who, when, for which letters, with what outcome."""
    from cli.dlq.replay import runs

    found = runs(settings())
    if as_json:
        for run in found:
            _print_json(run)
        return
    table = Table("run", "began", "ended", "by", "asked for", "letters", box=None, pad_edge=False, header_style="bold")
    for run in found:
        asked = ", ".join(f"{name} {value}" for name, value in run["asked"].items()) or "all"
        letters = ", ".join(f"{outcome} {number:,}" for outcome, number in run["letters"].items()) or "none"
        table.add_row(*map(Text, (run["run"], run["at"], run["ended"] or "did not end", f"{run['by']}@{run['host']}", asked, letters)))
    out.print(table if found else "there was no replay")


@app.command()
def export(  # noqa: PLR0917
    to: Annotated[Path, typer.Option("--out", help="The file to write: .jsonl, or .parquet; - is JSON lines on standard output.")],
    service: Service = None,
    reason: Reasons = None,
    type: Type = None,
    source: Source = None,
    id: Id = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write dead letters with their original bytes to a file."""
    from cli.dlq import export as exporting

    wanted = _filter(service, reason, type, source, id, since, until)
    if str(to) != "-" and to.suffix not in exporting.WRITERS:
        fail(f"--out {to}: the name says the form: end it with {' or '.join(exporting.WRITERS)}")
    try:
        with _lake() as letters, _bar(_number(letters, wanted)) as progress:
            number = exporting.write(to, _counted(letters.distinct(wanted), progress), COLUMNS)
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"cannot write {to}: {error.strerror or error}")
    err.print(f"{number:,} dead letters in {'standard output' if str(to) == '-' else to}", markup=False)


def _counted(rows: Iterator[dict[str, Any]], progress: "Callable[[Any], None]") -> Iterator[dict[str, Any]]:
    seen = Counter[str]()
    for row in rows:
        yield row
        seen["written"] += 1
        if seen["written"] % 500 == 0:
            progress(seen)


def _filter(  # noqa: PLR0917
    service: list[str] | None,
    reason: list[str] | None,
    type: list[str] | None,
    source: list[str] | None,
    id: list[str] | None,
    since: str | None,
    until: str | None,
) -> Filter:
    for option, given, known in (("--service", service, SERVICES), ("--reason", reason, tuple(Reason))):
        for value in given or ():
            if value not in known:
                fail(f"{option} {value}: use {', '.join(known)}")
    return Filter(
        service=tuple(service or ()),
        reason=tuple(reason or ()),
        type=tuple(type or ()),
        source=tuple(source or ()),
        id=tuple(id or ()),
        since=_moment("--since", since),
        until=_moment("--until", until),
    )


def _moment(option: str, text: str | None) -> datetime | None:
    try:
        return moment(text, datetime.now(UTC)) if text is not None else None
    except (ValueError, OverflowError):
        fail(f"{option} {text}: say 2026-01-31, 2026-01-31T12:00:00Z, or 90m, 6h or 2d for so long ago")


@contextmanager
def _lake() -> "Iterator[Letters]":
    from cli.dlq.letters import open_letters

    try:
        yield open_letters(settings())
    except Unavailable as problem:
        fail(f"{problem}: `make status` shows what runs")


def _judge(env: Mapping[str, str], again: bool) -> "Judge":
    from cli.dlq.judge import Bound, Judge
    from collector.accept import Limits
    from headrace.protobuf import Messages

    folder = ROOT / env["SCHEMAS_DIR"]
    try:
        registry = Registry.load(folder)
        messages = Messages.load(folder, registry.schemas)
        known = {
            key.id: Bound(key.source, key.source, frozenset(key.types) or None)
            for key in keyfile.read(ROOT / env["COLLECTOR_KEYS_FILE"])[0]
        }
    except PlanError as error:
        fail(f"the tracking plan cannot be used: {error.problems[0]} (`headrace schemas check` says all)")
    except keyfile.Unreadable as problem:
        fail(str(problem))
    if env["HEADRACE_WRITE_KEY"]:
        known[keys.digest(env["HEADRACE_WRITE_KEY"]).hex()[:8]] = Bound(env["COLLECTOR_SOURCE"])
    names = ("COLLECTOR_MAX_EVENT_BYTES", "COLLECTOR_MAX_BATCH_EVENTS", "COLLECTOR_MAX_DEPTH")
    return Judge(registry, messages, Limits(*(int(env[name]) for name in names)), known, again=again)


def _said_now(letter: DeadLetter) -> str:
    from cli.dlq.judge import Looping

    try:
        _judge(settings(), again=True)(letter)
    except Invalid as problem:
        return f"would be refused: {problem.reason}: {problem.detail}"
    except Looping as why:
        return str(why)
    return "would send it"


def _say_what_is_not_there_yet(env: Mapping[str, str], letters: "Letters") -> None:
    read_to = letters.read_to
    with consumer_of(env) as consumer:
        missing = 0
        for topic in DEAD_LETTER_TOPICS:
            there = offsets_of(consumer, topic) or {}
            behind = {number: (max(low, read_to.get((topic, number), 0)), high) for number, (low, high) in there.items()}
            missing += sum(1 for _ in values_in(consumer, topic, behind))
    if missing:
        err.print(f"{missing:,} dead letters are on their way to the lake and are not looked at yet", markup=False, style="dim")


def _number(letters: "Letters", wanted: Filter) -> int:
    """How many rows there are to look at."""
    return sum(int(rows.num_rows) for rows in letters.rows(wanted, ("rejected_at",)))


@contextmanager
def _bar(total: int) -> "Iterator[Callable[[Counter[str] | str], None]]":
    """What is given shows as a bar on a terminal: counts, and now and then a line of text."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("dead letters", total=total)

        def show(said: Counter[str] | str) -> None:
            if isinstance(said, str):
                err.print(Text(said, "dim"))
            else:
                description = ", ".join(f"{name} {number:,}" for name, number in said.items())
                bar.update(task, completed=said.total(), description=description)

        yield show


def _sentence(total: Counter[str], why: Counter[str], run: str | None) -> str:
    from cli.dlq.replay import DONE, LOOPING, REFUSED, REPLAYED

    reasons = ", ".join(f"{reason} {number:,}" for reason, number in why.most_common())
    parts = [f"{total[REPLAYED]:,} {'replayed' if run else 'would be replayed'}"]
    parts.append(f"{total[REFUSED]:,} refused again{f' ({reasons})' if reasons else ''}")
    parts += [f"{total[LOOPING]:,} left alone: refused after a replay before"] if total[LOOPING] else []
    parts += [f"{total[DONE]:,} done before"] if total[DONE] else []
    return f"{', '.join(parts)}; {f'recorded as run {run}' if run else 'nothing was sent'}"


def _readable(letter: DeadLetter) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        return json.dumps(json.loads(letter.payload_bytes()), indent=2, ensure_ascii=False)
    return letter.payload


def _second(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return event.rfc3339(value)
    raise TypeError(value)
