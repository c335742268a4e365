"""What the runs of curation and upkeep cost: the rows of `lake.gold.runs`. Pure: Spark writes those of curation, Trino those of upkeep.

Grain: one job (silver, backfill; compact, expire, sweep, analyze) of one attempt of a run; of upkeep, for one table. What does not apply
to a job is null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

RUNS = "lake.gold.runs"
_ENGINES: Mapping[str, Mapping[str, str]] = {
    "spark": {"str": "string", "datetime": "timestamp", "float": "double", "int": "bigint"},
    "trino": {"str": "varchar", "datetime": "timestamp(6) with time zone", "float": "double", "int": "bigint"},
}


@dataclass(frozen=True)
class Cost:
    """One row. `query_seconds`: of a query that reads a column of every row of the table, before and after the work."""

    run_id: str
    job: str
    started_at: datetime
    seconds: float
    table_name: str | None = None
    rows_read: int | None = None
    rows_written: int | None = None
    files_read: int | None = None
    bytes_read: int | None = None
    files_before: int | None = None
    files_after: int | None = None
    bytes_before: int | None = None
    bytes_after: int | None = None
    snapshots_before: int | None = None
    snapshots_after: int | None = None
    query_seconds_before: float | None = None
    query_seconds_after: float | None = None

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"started_at": self.started_at.isoformat()}


def columns(engine: str) -> str:
    """The columns with the types of `engine` (spark, trino)."""
    types = _ENGINES[engine]
    return ", ".join(f"{field.name} {types[str(getattr(field.type, '__name__', field.type)).split(' |')[0]]}" for field in fields(Cost))


def trino_statements(costs: Sequence[Cost]) -> list[tuple[str, list[Any]]]:
    """What makes the table where it is not there, and puts `costs` into it in one commit: statements and their parameters."""
    made = f"CREATE TABLE IF NOT EXISTS {RUNS} ({columns('trino')}) WITH (format_version = 2, partitioning = ARRAY['month(started_at)'])"
    wanted: list[tuple[str, list[Any]]] = [(f"CREATE SCHEMA IF NOT EXISTS {RUNS.rpartition('.')[0]}", []), (made, [])]
    if costs:
        one = f"({', '.join('?' * len(fields(Cost)))})"
        values = [value for cost in costs for value in asdict(cost).values()]
        wanted.append((f"INSERT INTO {RUNS} VALUES {', '.join([one] * len(costs))}", values))
    return wanted
