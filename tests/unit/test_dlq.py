"""Dead letters on the command line: judged again, read in bounded memory, written to files."""

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from typer.testing import CliRunner

from cli.__main__ import app
from cli.dlq import export
from cli.dlq.filters import COLUMNS, Filter, moment
from cli.dlq.judge import MOST_TIMES, Bound, Judge, Looping
from cli.dlq.letters import Ids, Letters
from cli.dlq.replay import verdicts
from collector.accept import Limits
from enricher.stage import enriched
from headrace import dead_letter, event, replays
from headrace.dead_letter import DeadLetter, Invalid, Reason
from headrace.event import RawEvent, Receipt
from headrace.protobuf import Messages
from headrace.registry import Registry
from loaders.batch import rows
from loaders.batch.table import open_table

ROOT = Path(__file__).parents[2]
REGISTRY = Registry.load(ROOT / "schemas")
MESSAGES = Messages.load(ROOT / "schemas", REGISTRY.schemas)
RUNNER = CliRunner()


def judge(*, again: bool = False) -> Judge:
    return Judge(REGISTRY, MESSAGES, Limits(), {"k": Bound("shop")}, again=again)


def raw(**changes: Any) -> RawEvent:
    receipt = Receipt(collector_id="collector-2", protocol="segment", key_id="k", client="c", user_agent="u")
    values: dict[str, Any] = {"id": "e1", "source": "shop", "type": "button_click", "time": "2026-01-31T12:00:00Z", "receipt": receipt}
    values |= {"received_at": "2026-01-31T12:00:01.000Z", "dataschema": "button_click/1-0-0", "data": msgspec.Raw(b'{"button_id": "b"}')}
    return RawEvent(**(values | changes))


def letter(of: RawEvent | bytes, **changes: Any) -> DeadLetter:
    text, encoding = dead_letter.text_of(of if isinstance(of, bytes) else event.encode(of))
    values: dict[str, Any] = {
        "dead_letter_id": "l1",
        "service": "enricher",
        "reason": Reason.SCHEMA_INVALID,
        "detail": "bad",
        "payload": text,
    }
    values |= {"rejected_at": "2026-01-31T12:00:02.000Z", "payload_encoding": encoding, "origin_topic": "events.raw", "origin_partition": 1}
    return DeadLetter(**(values | {"origin_offset": 7} | changes))


# ---- judged again


def test_what_the_enricher_refused_goes_back_as_it_was_and_says_where_it_came_from() -> None:
    replay = judge()(letter(raw()))
    ((key, value),) = replay.messages
    assert (replay.topic, key) == ("events.raw", b"shop\x1fe1")
    found = event.decode_raw(value)
    assert found.receipt.collector_id == "collector-2/replay-1/l1"
    found.receipt = msgspec.structs.replace(found.receipt, collector_id="collector-2")
    assert found == raw()


def test_what_a_loader_refused_goes_back_enriched() -> None:
    of = enriched(raw(), b'{"repurchase":{"score":1}}', "2026-01-31T12:00:03Z")
    replay = judge()(letter(of, service="realtime-loader", origin_topic="events.enriched"))
    found = event.decode_enriched(replay.messages[0][1])
    assert (replay.topic, found.enriched_at, bytes(found.enrichment)) == ("events.enriched", of.enriched_at, bytes(of.enrichment))
    assert replays.origin_of(found.receipt.collector_id) == ("l1", 1)


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        (letter(raw(data=msgspec.Raw(b"{}"))), "schema_invalid"),
        (letter(raw(type="nothing")), "unknown_type"),
        (letter(b"\xff\0"), "unparseable"),
        (letter(raw(), detail="x (payload cut: all 9 bytes are at t)"), "too_large"),
        (letter(raw(), origin_topic="events.enriched"), "unparseable"),
        (letter(raw(), origin_topic="dead-letter.enricher"), "malformed"),
        (letter(b"{}", origin_topic=None, origin_partition=None, key_id="k"), "malformed"),  # of an older collector
        (letter(b"{", origin_topic="/v1/events", origin_partition=None, key_id="k", received_at="2026-01-31T12:00:00Z"), "unparseable"),
    ],
)
def test_what_would_be_refused_again_is_not_sent(of: DeadLetter, reason: str) -> None:
    with pytest.raises(Invalid) as refused:
        judge()(of)
    assert refused.value.reason == reason


def test_an_event_that_is_refused_again_and_again_is_not_replayed_for_ever() -> None:
    found = letter(raw())
    with pytest.raises(Looping, match="refused again after a replay"):
        judge()(letter(judge()(found).messages[0][1]))
    for sent in range(MOST_TIMES):
        value = judge(again=True)(found).messages[0][1]
        assert event.decode_raw(value).receipt.collector_id == f"collector-2/replay-{sent + 1}/{found.dead_letter_id}"
        found = letter(value, dead_letter_id=f"again-{sent}")
    with pytest.raises(Looping, match=rf"\({MOST_TIMES} in all\) of again-{MOST_TIMES - 2}$"):
        judge(again=True)(found)


@given(st.text(max_size=20), st.uuids(), st.uuids())
def test_a_mark_says_the_last_letter_and_keeps_the_collector(collector: str, one: Any, other: Any) -> None:
    twice = replays.marked(replays.marked(collector, str(one)), str(other))
    origin = replays.origin_of(twice)
    assert origin is not None
    if replays.origin_of(collector) is None:
        assert origin == (str(other), 2)
        assert twice.endswith(f"replay-2/{other}")
    assert replays.origin_of("collector") is None


def test_what_is_done_is_not_done_again() -> None:
    done = Ids()
    done.new(["l1"])
    outcomes = [one.outcome for one in verdicts([letter(raw()), letter(raw(), dead_letter_id="l2"), letter(b"")], judge(), done)]
    assert outcomes == ["done before", "replayed", "done before"]


@given(
    st.binary(max_size=200), st.sampled_from(["/v1/events", "/v1/events?id=x", "/v1/batch", "/v1/track", "/v1/logs", "grpc", "events.raw"])
)
def test_any_payload_is_judged(payload: bytes, way: str) -> None:
    of = letter(payload, origin_topic=way, received_at="2026-01-31T12:00:00Z", key_id="k")
    of.origin_partition = 0 if way == "events.raw" else None
    with pytest.raises(Invalid):
        judge()(of)


# ---- which ones


def test_moments() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment("90m", now) == now - timedelta(minutes=90)
    assert moment("2d", now) == now - timedelta(days=2)
    assert moment("2026-01-30", now) == datetime(2026, 1, 30, tzinfo=UTC)
    assert moment("2026-01-30T12:00:00+01:00", now) == datetime(2026, 1, 30, 11, tzinfo=UTC)
    for wrong in ("yesterday", "", "h", "-2h", "2026-13-01"):
        with pytest.raises(ValueError, match=r"."):
            moment(wrong, now)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list", "--reason", "bad"], "--reason bad: use unparseable, malformed,"),
        (["stats", "--service", "loader"], "--service loader: use collector, enricher, realtime-loader, batch-loader"),
        (["replay", "--since", "yesterday"], "--since yesterday: say 2026-01-31,"),
        (["export", "--out", "letters.csv"], "--out letters.csv: the name says the form: end it with .jsonl or .parquet"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = tmp_path / ".env"
    env.write_text((ROOT / ".env.example").read_text())
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(env))
    result = RUNNER.invoke(app, ["dlq", *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"headrace: {says}"), result.stderr
    assert result.stderr.count("\n") == 1


# ---- from a lake on disk

MANY = 30_000
PADDING = "x" * 1500


def lake(folder: Path) -> SqlCatalog:
    return SqlCatalog("lake", uri=f"sqlite:///{folder}/catalog.db", warehouse=f"file://{folder}")


def rows_of(numbers: range, day: int) -> pa.Table:
    made: dict[str, Any] = {field.name: pa.nulls(len(numbers), field.type) for field in rows.DEAD_LETTERS}
    for name, value in {"service": "enricher", "detail": "bad", "payload": PADDING, "payload_encoding": "utf8", "source": "s"}.items():
        made[name] = pa.array([value] * len(numbers))
    made["dead_letter_id"] = pa.array([f"letter-{number}" for number in numbers])
    made["reason"] = pa.array(["schema_invalid" if number % 2 else "unknown_type" for number in numbers])
    made["type"] = pa.array([f"type_{number % 3}" for number in numbers])
    made["rejected_at"] = pa.array([datetime(2026, 1, day, tzinfo=UTC)] * len(numbers), rows.DEAD_LETTERS.field("rejected_at").type)
    return pa.table(made, schema=rows.DEAD_LETTERS)


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Letters]:
    """MANY letters of two days in six files, and a hundred of them a second time, which were written later."""
    folder = tmp_path_factory.mktemp("lake")
    table = open_table(lake(folder), "bronze.dead_letters", rows.DEAD_LETTERS, "rejected_at")
    step = MANY // 6
    for place in range(6):
        table.append(rows_of(range(place * step, (place + 1) * step), 20 if place < 3 else 10))
    table.append(rows_of(range(100), 20))
    return folder, Letters(table)


def test_each_letter_is_read_once_and_the_oldest_come_first(letters: tuple[Path, Letters]) -> None:
    found = [row["dead_letter_id"] for row in letters[1].distinct(Filter(), ("dead_letter_id",))]
    assert len(found) == MANY
    assert Counter(found).most_common(1)[0][1] == 1
    assert int(found[0].removeprefix("letter-")) >= MANY // 2, "of the 10th, though it was written last"


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (Filter(reason=("schema_invalid",)), MANY // 2),
        (Filter(reason=("schema_invalid", "unknown_type"), type=("type_1",)), MANY // 3),
        (Filter(since=datetime(2026, 1, 15, tzinfo=UTC)), MANY // 2),
        (Filter(since=datetime(2026, 1, 20, tzinfo=UTC), until=datetime(2026, 1, 20, tzinfo=UTC)), 0),
        (Filter(until=datetime(2026, 1, 20, tzinfo=UTC), service=("enricher",), source=("s",)), MANY // 2),
        (Filter(id=("letter-7", "letter-8", "no such")), 2),
        (Filter(source=("' OR 1=1",)), 0),
    ],
)
def test_filters(letters: tuple[Path, Letters], wanted: Filter, number: int) -> None:
    assert sum(1 for _ in letters[1].distinct(wanted, ("dead_letter_id",))) == number


def test_rows_that_were_deleted_are_not_there(tmp_path: Path) -> None:
    table = open_table(lake(tmp_path), "bronze.dead_letters", rows.DEAD_LETTERS, "rejected_at")
    table.append(rows_of(range(10), 1))
    table.delete("dead_letter_id = 'letter-3'")
    assert {one.dead_letter_id for one in Letters(table).each(Filter())} == {f"letter-{n}" for n in range(10)} - {"letter-3"}
    assert list(Letters(None).each(Filter())) == []


_READ = """
import resource, sys
from cli.dlq.filters import Filter
from cli.dlq.letters import Letters
from pyiceberg.catalog.sql import SqlCatalog
table = SqlCatalog("lake", uri=f"sqlite:///{sys.argv[1]}/catalog.db").load_table("bronze.dead_letters")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
next(Letters(table).each(Filter()))
before = peak()
assert sum(1 for _ in Letters(table).each(Filter())) == int(sys.argv[2])
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_number_of_letters(letters: tuple[Path, Letters]) -> None:
    """All of them are 45 MB; a reader of whole files needs that, as PyIceberg's own does."""
    done = subprocess.run([sys.executable, "-c", _READ, str(letters[0]), str(MANY)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 15_000, "KB of resident memory more than for the first letter"


# ---- to a file

ODD = [b'{"a": 1}', b"\xff\x00", "grö\n🚀".encode(), b""]


def test_files_hold_the_original_bytes(tmp_path: Path) -> None:
    of = [letter(payload, dead_letter_id=f"l{number}") for number, payload in enumerate(ODD)]

    def found() -> Any:
        moments = {"rejected_at": datetime(2026, 1, 31, 12, 0, 2, tzinfo=UTC), "received_at": None}
        return ({**msgspec.structs.asdict(one), **moments, "reason": str(one.reason)} for one in of)

    assert export.write(tmp_path / "l.jsonl", found(), COLUMNS) == len(ODD)
    back = [dead_letter.decode(line) for line in (tmp_path / "l.jsonl").read_bytes().splitlines()]
    assert [one.payload_bytes() for one in back] == ODD
    assert back == of
    assert export.write(tmp_path / "l.parquet", found(), COLUMNS) == len(ODD)
    table = pq.read_table(tmp_path / "l.parquet").to_pylist()
    assert [row["payload"] for row in table] == ODD
    assert [row["origin_offset"] for row in table] == [7] * len(ODD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l.jsonl", "l.parquet"]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> Any:
        yield dict.fromkeys(COLUMNS, "x")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        export.write(tmp_path / "l.jsonl", broken(), COLUMNS)
    assert list(tmp_path.iterdir()) == []
