"""What keeps a table of the lake fast: the statements for Trino, and what is measured before and after. Pure."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dags.runs import Cost

# What the tasks of the DAG `maintain` are called, in their order: each does one thing to every table.
WORK = ("compact", "expire", "sweep", "analyze")
# Files below it are written together. One row group of Trino's writer is as large, so a larger file would be read no faster.
SMALL_FILE = "64MB"
# Nobody can have begun to write a file longer ago and still mean to commit it: the batch loader gives its files up after an hour.
LEAST_ORPHAN_HOURS = 24


class BadRetention(ValueError):
    """How long the history is kept is not said in a way that can be understood."""


@dataclass(frozen=True)
class Measure:
    """A table at a moment: data files, their bytes, snapshots, and the seconds of a query that reads a column of every row."""

    files: int
    bytes: int
    snapshots: int
    query_seconds: float


@dataclass(frozen=True)
class Done:
    """What was done to a table, from `started_at` on. `problem` says why it was left as it was."""

    table: str
    work: str
    before: Measure
    after: Measure
    started_at: datetime
    seconds: float
    problem: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Flat, for the log's line of JSON."""
        return {"table": self.table, "work": self.work, "seconds": self.seconds, **self._measures(), "problem": self.problem}

    def cost(self, run_id: str) -> Cost:
        """As a row of lake.gold.runs."""
        return Cost(run_id, self.work, self.started_at, self.seconds, self.table, **self._measures())

    def _measures(self) -> dict[str, Any]:
        return {f"{key}_{when}": value for when in ("before", "after") for key, value in asdict(getattr(self, when)).items()}


def quoted(name: str) -> str:
    """`lake.silver.page_view` with each part in quotes."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def metadata(name: str, what: str) -> str:
    """The hidden table `what` (files, snapshots) beside a table."""
    return quoted(f"{name}${what}")


def hours_of(retention: str) -> int:
    """The hours in `24h` or `7d`. Raises BadRetention."""
    match = re.fullmatch(r"([0-9]{1,6})([hd])", retention)
    if not match or not int(match[1]):
        raise BadRetention(f"MAINTENANCE_HISTORY is {retention!r}: a number of hours or days is wanted, such as 24h or 7d")
    return int(match[1]) * (24 if match[2] == "d" else 1)


def statement(work: str, table: str, history_hours: int) -> str:
    """What does `work` to `table`, keeping `history_hours` of its history."""
    match work:
        case "compact":
            return f"ALTER TABLE {quoted(table)} EXECUTE optimize(file_size_threshold => '{SMALL_FILE}')"
        case "expire":
            return f"ALTER TABLE {quoted(table)} EXECUTE expire_snapshots(retention_threshold => '{history_hours}h')"
        case "sweep":
            hours = max(history_hours, LEAST_ORPHAN_HOURS)
            return f"ALTER TABLE {quoted(table)} EXECUTE remove_orphan_files(retention_threshold => '{hours}h')"
        case "analyze":
            return f"ANALYZE {quoted(table)}"
    raise ValueError(f"no such work: {work}")


def shown(done: Sequence[Done]) -> list[str]:
    """Lines of a table for the log: what changed, and by how much."""
    head = ("table", "files", "MB", "snapshots", "query s", "took s", "")
    rows = [head]
    for one in done:
        before, after = one.before, one.after
        rows.append(
            (
                one.table,
                f"{before.files:,} -> {after.files:,}",
                f"{before.bytes / 1e6:,.1f} -> {after.bytes / 1e6:,.1f}",
                f"{before.snapshots:,} -> {after.snapshots:,}",
                f"{before.query_seconds:.2f} -> {after.query_seconds:.2f}",
                f"{one.seconds:.1f}",
                one.problem or "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
