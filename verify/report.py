"""What a run comes to: its figures, flat and with their units in their names, and whether it proves anything."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from verify.checker import SEARCH, VIOLATIONS, Verdict
from verify.ledger import Outcome, Row, longest_gap
from verify.nemesis import RECOVERY_LIMIT_SECONDS, Happened, by_kind

Figures = dict[str, float | int | str]


@dataclass
class Sendings:
    """What the ledger says, counted in events."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    by_protocol: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    again: int = 0  # sent again though they had been acknowledged
    longest_gap_seconds: float = 0.0


def counted(rows: Iterable[Row]) -> Sendings:
    """One walk through the ledger."""
    found, known, acks = Sendings(), set[str](), set[float]()
    for row in rows:
        found.outcomes[row.outcome] += 1
        found.by_kind[row.event.kind] += 1
        found.by_protocol[row.protocol] += 1
        if row.attempt > 1:
            found.retries += 1
        elif row.event.id in known and row.event.kind != "conflict":
            found.again += 1
        known.add(row.event.id)
        if row.outcome is Outcome.OK:
            acks.add(row.at)
    found.longest_gap_seconds = round(longest_gap(sorted(acks)), 2)
    return found


@dataclass(frozen=True)
class Demands:
    """What a run must have had, to prove anything: acknowledged events, faults, and each of these kinds."""

    acknowledged: int
    faults: int
    kinds: Sequence[str]


def emptiness(sent: Sendings, happened: Sequence[Happened], demands: Demands) -> list[str]:
    """Why a run proves nothing, where it does not."""
    found, problems = by_kind(happened), []
    if sent.outcomes[Outcome.OK] < demands.acknowledged:
        problems.append(f"only {sent.outcomes[Outcome.OK]} events were acknowledged, not {demands.acknowledged}")
    if found.total() < demands.faults:
        problems.append(f"only {found.total()} faults happened, not {demands.faults}")
    missing = [kind for kind in demands.kinds if not found[kind]]
    if missing:
        problems.append(f"these kinds of fault did not happen: {', '.join(missing)}")
    stuck = sorted({fault.kind for fault in happened if fault.problem is None and fault.recovery_seconds is None})
    if stuck:
        problems.append(f"no recovery was seen within {RECOVERY_LIMIT_SECONDS:.0f} s after: {', '.join(stuck)}")
    return problems


def figures(
    sent: Sendings, happened: Sequence[Happened], verdicts: Mapping[str, Verdict], letters: Mapping[str, int], bronze: tuple[int, int]
) -> Figures:
    """Everything that is reported."""
    rows, identities = bronze
    found: Figures = {
        "offered_events": sent.outcomes.total(),
        **{f"{outcome}_events": sent.outcomes[outcome] for outcome in Outcome},
        **{f"offered_{protocol}_events": number for protocol, number in sorted(sent.by_protocol.items())},
        **{f"offered_{kind}_events": number for kind, number in sorted(sent.by_kind.items())},
        "sent_again_events": sent.again,
        "retried_events": sent.retries,
    }
    for store, verdict in verdicts.items():
        prefix = f"{SEARCH}_" if store == SEARCH else ""
        found |= {f"{prefix}{name}_events": getattr(verdict, name) for name in VIOLATIONS}
    found |= {f"dead_letters_{station.replace('.', '_')}": number for station, number in letters.items()}
    found["bronze_rows"] = rows
    found["duplicates_per_million_before_deduplication"] = round((rows - identities) * 1e6 / rows) if rows else 0
    found["sent_again_per_million"] = round((sent.again + sent.retries) * 1e6 / max(1, sent.outcomes.total()))
    found["longest_gap_between_acks_seconds"] = sent.longest_gap_seconds
    found |= {f"faults_{kind}": number for kind, number in sorted(by_kind(happened).items())}
    found["faults"] = by_kind(happened).total()
    return found | _recoveries(happened)


def _recoveries(happened: Sequence[Happened]) -> Figures:
    found: Figures = {}
    for kind in sorted({fault.kind for fault in happened}):
        of_kind = [fault for fault in happened if fault.kind == kind and fault.problem is None]
        times = [fault.recovery_seconds for fault in of_kind if fault.recovery_seconds is not None]
        if times:
            found[f"outage_{kind}_median_seconds"] = round(median(fault.outage_seconds for fault in of_kind), 2)
            found[f"recovery_{kind}_median_seconds"] = round(median(times), 2)
            found[f"recovery_{kind}_longest_seconds"] = round(max(times), 2)
    return found


def write(path: Path, found: Figures) -> None:
    """As JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


def show(console: Console, found: Figures, happened: Sequence[Happened], verdicts: Mapping[str, Verdict], problems: Sequence[str]) -> None:
    """Print it all, and what is wrong last."""
    numbers = Table("", "", title="What was sent, and what became of it", show_header=False)
    for name, value in found.items():
        if not name.startswith(("faults_", "outage_", "recovery_")):
            numbers.add_row(name.replace("_", " "), f"{value:,}")
    faults = Table("fault", "times", "outage s", "recovery s", "longest s", title="Faults (medians)")
    for kind, times in sorted(by_kind(happened).items()):
        cells = (
            found.get(f"{what}_seconds", "?") for what in (f"outage_{kind}_median", f"recovery_{kind}_median", f"recovery_{kind}_longest")
        )
        faults.add_row(kind.replace("_", " "), str(times), *map(str, cells))
    console.print(numbers, faults)
    for fault in happened:
        if fault.problem:
            console.print(f"fault {fault.number} ({fault.kind}) did not happen as meant: {fault.problem}", style="yellow")
    for store, verdict in verdicts.items():
        for example in verdict.examples:
            console.print(f"{store}: {example}", style="red")
    for problem in problems:
        console.print(problem, style="red")
