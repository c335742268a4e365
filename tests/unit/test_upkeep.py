"""What upkeep says to Trino."""

from dataclasses import asdict
from datetime import UTC, datetime

import pytest

from dags.runs import columns, trino_statements
from dags.upkeep.tables import LEAST_ORPHAN_HOURS, BadRetention, Done, Measure, hours_of, quoted, shown, statement

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DONE = Done("lake.bronze.events", "compact", Measure(1200, 3_400_000, 9, 2.5), Measure(1, 1_000_000, 10, 0.25), NOW, 4.04)


@pytest.mark.parametrize(("said", "hours"), [("24h", 24), ("7d", 168), ("1h", 1)])
def test_a_retention_is_hours(said: str, hours: int) -> None:
    assert hours_of(said) == hours


@pytest.mark.parametrize("said", ["", "24", "0h", "-1d", "1w", "1.5h", "24h; DROP TABLE x", "٣h"])
def test_what_is_no_retention_is_refused_with_what_is_wanted(said: str) -> None:
    with pytest.raises(BadRetention, match="a number of hours or days is wanted, such as 24h or 7d"):
        hours_of(said)


def test_a_name_cannot_leave_its_quotes() -> None:
    assert quoted('lake.silver.a"b') == '"lake"."silver"."a""b"'


def test_a_file_that_somebody_may_still_commit_is_never_an_orphan() -> None:
    assert f"'{LEAST_ORPHAN_HOURS}h'" in statement("sweep", "lake.bronze.events", 1)
    assert "'168h'" in statement("sweep", "lake.bronze.events", 168)


def test_unknown_work_is_refused() -> None:
    with pytest.raises(ValueError, match="no such work: drop"):
        statement("drop", "lake.bronze.events", 24)


def test_the_log_shows_before_and_after() -> None:
    done = DONE
    assert shown([done]) == [
        "table               files       MB          snapshots  query s       took s",
        "lake.bronze.events  1,200 -> 1  3.4 -> 1.0  9 -> 10    2.50 -> 0.25  4.0",
    ]
    assert done.as_row()["files_before"] == 1200


def test_what_was_done_is_a_row_of_the_runs() -> None:
    made, table, insert = trino_statements([DONE.cost("scheduled__1"), DONE.cost("scheduled__2")])
    assert made == ("CREATE SCHEMA IF NOT EXISTS lake.gold", [])
    assert table[0].startswith(f"CREATE TABLE IF NOT EXISTS lake.gold.runs ({columns('trino')}) WITH ")
    names = [column.split()[0] for column in columns("spark").split(", ")]
    assert insert[0].count("?") == len(insert[1]) == 2 * len(names)
    row = dict(zip(names, insert[1], strict=False))
    assert row == asdict(DONE.cost("scheduled__1"))
    assert {name: value for name, value in row.items() if value is not None} == {
        "run_id": "scheduled__1",
        "job": "compact",
        "started_at": NOW,
        "seconds": 4.04,
        "table_name": "lake.bronze.events",
        **{"files_before": 1200, "files_after": 1, "bytes_before": 3_400_000, "bytes_after": 1_000_000},
        **{"snapshots_before": 9, "snapshots_after": 10, "query_seconds_before": 2.5, "query_seconds_after": 0.25},
    }


def test_where_nothing_was_done_nothing_is_inserted() -> None:
    assert [statement.split()[0] for statement, _ in trino_statements([])] == ["CREATE", "CREATE"]
