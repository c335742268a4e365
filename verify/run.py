"""One verification: load, faults, heal, drain, a last curation, the account."""

import asyncio
import contextlib
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import trino
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from headrace.lake import LakeSettings
from runtime.component import Place
from runtime.errors import RuntimeFailure
from verify import ledger, report
from verify.checker import VIOLATIONS, Checker, Verdict, files_gone
from verify.controls import Control, mutated
from verify.events import Factory, source_of
from verify.faults import Fault, curate, kinds
from verify.ledger import Ledger, Outcome
from verify.nemesis import Happened, Nemesis, Planned, schedule
from verify.report import Demands, Figures, Sendings
from verify.senders import Senders, Tally
from verify.site import LINKS, Site, SmallDisk
from verify.watch import ACKS, CURATED, Drain, Watch

_CALM_SECONDS = 5.0  # of load without faults, before and after them
_DRAIN_SECONDS = 300.0
_CONTROL_RATE = 150.0


@dataclass(frozen=True)
class Wanted:
    """How much of everything: faults (0: one of each kind), acknowledged events, events a second, faults at a time, seconds of load.

    `only` are the kinds of fault; none: all of them.
    """

    seed: int
    faults: int
    acknowledged: int
    rate: float = 400.0
    lanes: int = 5
    most_seconds: float = 4 * 3600.0
    short: bool = False
    only: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Account:
    """What came of a run. `problems` are the reasons for which it is no proof, or proves the contrary."""

    run: str
    sent: Sendings
    happened: Sequence[Happened]
    verdicts: Mapping[str, Verdict]
    figures: Figures
    problems: Sequence[str]
    files_gone: int = 0


@contextlib.contextmanager
def trino_cursor(env: Mapping[str, str]) -> Iterator[Any]:
    """Ask Trino."""
    address = urlsplit(env["TRINO_URL"])
    connection = trino.dbapi.connect(  # type: ignore[no-untyped-call]
        host=address.hostname, port=address.port, user=env["TRINO_USER"], source="verify", request_timeout=120
    )
    try:
        yield connection.cursor()
    finally:
        connection.close()


class Load(threading.Thread):
    """The senders, in a thread with an event loop of its own."""

    def __init__(self, senders: Senders) -> None:
        super().__init__(name="senders", daemon=True)
        self._senders = senders
        self._over = threading.Event()
        self.problem: BaseException | None = None
        self.tally: Tally = senders.tally

    def run(self) -> None:
        """Until `finish`."""
        try:
            asyncio.run(self._senders.run(self._over.is_set))
        except BaseException as problem:  # whatever it is, the run is none without it
            self.problem = problem

    def finish(self) -> None:
        """Send nothing more; returns once all answers are there. Raises what ended the senders."""
        self._over.set()
        self.join()
        if self.problem:
            raise self.problem


def verify(site: Site, disk: SmallDisk, wanted: Wanted, console: Console) -> Account:
    """Do it all on a prepared site. Raises RuntimeFailure where that cannot be, or the platform does not come back."""
    run = run_name(wanted.seed)
    every = kinds(site, disk, random.Random(wanted.seed))
    unknown = sorted(set(wanted.only or ()) - set(every))
    if unknown:
        raise RuntimeFailure(f"no such kind of fault: {', '.join(unknown)}; there are {', '.join(sorted(every))}")
    chosen = {kind: make for kind, make in every.items() if wanted.only is None or kind in wanted.only}
    if 0 < wanted.faults < len(chosen):
        raise RuntimeFailure(
            f"{wanted.faults} faults cannot be of all {len(chosen)} kinds: ask for {len(chosen)} or more, or for some kinds (--only)"
        )
    planned = schedule(wanted.seed, wanted.faults or len(chosen), list(chosen), wanted.short)
    if wanted.short:  # curations take longest, and what harms them too has to wait for them
        planned.sort(key=lambda each: _turn(chosen[each.kind]().touches))
    (site.folder / f"{run}.schedule").write_text("".join(f"{each}\n" for each in planned))
    console.print(f"Run {run}, seed {wanted.seed}: {len(planned)} faults of {len(chosen)} kinds; ledger and logs are in {site.folder}")
    with loaded(site, run, wanted.seed, wanted.rate) as (load, watch):
        happened = _under_fire(site, wanted, run, (load, watch), planned, chosen, console)
    problems = settle(site, console)
    account = judged(site, run, happened, problems, console)
    empty = report.emptiness(account.sent, happened, Demands(wanted.acknowledged, len(planned), list(chosen)))
    account = replace(account, problems=[*account.problems, *empty], figures={"seed": wanted.seed, **account.figures})
    report.show(console, account.figures, happened, account.verdicts, account.problems)
    return account


def _turn(touches: frozenset[str]) -> int:
    if CURATED not in touches:
        return 1
    return 0 if touches == {CURATED} else 2


def control(site: Site, of: Control, seed: int, console: Console) -> tuple[bool, str]:
    """Whether a mistake is noticed, and what the account says."""
    run = run_name(seed)
    console.print(f"Control {of.mutant}, run {run}")
    curation = mutated(of.mutant) if of.program is None else None
    if of.program:
        rewired = site.rewired(of.program)
        site.restart_all({of.program: lambda script: mutated(of.mutant)(rewired(script))})
    try:
        with loaded(site, run, seed, _CONTROL_RATE):
            of.provoke(site)
    finally:
        if of.program:
            site.restart_all({of.program: rewired})
    problems = settle(site, console, curation)
    account = judged(site, run, [], problems, console)
    said = "; ".join(
        f"{store}: {getattr(v, name)} {name}" for store, v in account.verdicts.items() for name in VIOLATIONS if getattr(v, name)
    )
    said += f"; {account.files_gone} files of the lake gone" if account.files_gone else ""
    return of.noticed(account.verdicts, account.files_gone), said or "nothing"


@contextlib.contextmanager
def step(console: Console, what: str) -> Iterator[None]:
    """Show what is done, and how long it took."""
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"{what}: {time.monotonic() - began:.0f} s")


def run_name(seed: int) -> str:
    """A name for a run that no other has; the ids of its events begin with it."""
    return f"v{seed}x{secrets.token_hex(4)}"


@contextlib.contextmanager
def loaded(site: Site, run: str, seed: int, rate: float) -> Iterator[tuple[Load, Watch]]:
    """Events are sent, with some calm at the beginning and at the end."""
    env = site.place.env
    addresses = {link.server: site.address(link) for link in LINKS if link.client == "producer"}
    with Ledger(site.folder / f"{run}.ledger") as book, Watch(env) as watch:
        senders = Senders(
            book,
            Factory(run, seed),
            rest=f"http://{addresses['collector']}",
            target=addresses["collector-grpc"],
            key=env["HEADRACE_WRITE_KEY"],
            rate=rate,
            seed=seed,
        )
        load = Load(senders)
        load.start()
        try:
            time.sleep(_CALM_SECONDS)
            yield load, watch
            time.sleep(_CALM_SECONDS)
        finally:
            load.finish()


def _under_fire(
    site: Site,
    wanted: Wanted,
    run: str,
    session: tuple[Load, Watch],
    planned: Sequence[Planned],
    chosen: Mapping[str, Callable[[], Fault]],
    console: Console,
) -> list[Happened]:
    load, watch = session

    def recovered(station: str, since: float) -> float | None:
        return load.tally.acked_after(since) if station == ACKS else watch.caught_up(station, since)

    nemesis = Nemesis(planned, chosen, recovered, site.folder / f"{run}.faults", wanted.lanes)
    nemesis.start()
    try:
        began = time.monotonic()
        told = 0
        with _progress(console) as progress:
            faults = progress.add_task("faults", total=len(planned))
            acked = progress.add_task("acknowledged", total=wanted.acknowledged)
            while not (nemesis.done and load.tally.events[Outcome.OK] >= wanted.acknowledged):
                if time.monotonic() - began > wanted.most_seconds or load.problem:
                    break
                for fault in nemesis.happened[told:] if not console.is_terminal else ():  # a bar shows nothing in a log
                    told += 1
                    console.print(f"{told}/{len(planned)} {fault.kind}: {fault.problem or f'recovered after {fault.recovery_seconds} s'}")
                under_way = ", ".join(sorted(nemesis.under_way.values()))
                progress.update(faults, completed=len(nemesis.happened), description=f"faults ({under_way or 'none'} now)")
                progress.update(acked, completed=load.tally.events[Outcome.OK])
                time.sleep(0.5)
    finally:  # also where somebody interrupts: what was begun is undone
        nemesis.stop()
    return nemesis.happened


def judged(site: Site, run: str, happened: Sequence[Happened], problems: Sequence[str], console: Console) -> Account:
    """The account of a run that is over."""
    path, settings = site.folder / f"{run}.ledger", LakeSettings.of(site.place.env)
    with step(console, "Asking what became of every event"), trino_cursor(site.place.env) as cursor:
        checker = Checker(cursor, settings, source_of(run))
        verdicts = checker.decide(ledger.read(path))
        letters, bronze = checker.dead_letters_by_reason(), bronze_of(checker)
    gone = files_gone(settings)
    found = [*problems, *([f"{gone} files that the tables of bronze name are gone"] if gone else [])]
    found += [f"{store}: events are lost, doubled or not what they were" for store, verdict in verdicts.items() if not verdict.clean]
    sent = report.counted(ledger.read(path))
    return Account(run, sent, happened, verdicts, report.figures(sent, happened, verdicts, letters, bronze), found, gone)


def bronze_of(checker: Checker) -> tuple[int, int]:
    """Rows and identities, or none where the table cannot be read."""
    try:
        return checker.bronze()
    except trino.exceptions.TrinoQueryError:
        return 0, 0


def _progress(console: Console) -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console)


def settle(site: Site, console: Console, curation: Callable[[str], str] | None = None) -> list[str]:
    """Drain and curate; what went wrong. `curation` changes the command of the curation."""
    env = site.place.env
    with step(console, "Draining"):
        left = Drain(env, LakeSettings.of(env)).await_nothing(_DRAIN_SECONDS)
    problems = [f"{number} messages were not past {station} after {_DRAIN_SECONDS:.0f} s" for station, number in left.items() if number]
    with step(console, "Curating"):
        try:
            curate(site, curation)
        except RuntimeFailure as failure:
            problems.append(str(failure))
    httpx.post(f"{site.place.url('ELASTICSEARCH_PORT')}/_refresh", timeout=60, trust_env=False).raise_for_status()
    return problems


def folder_of(place: Place) -> Path:
    """Where ledgers, schedules and logs of verifications are kept."""
    folder = place.state / "verify"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
