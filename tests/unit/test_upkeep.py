"""What upkeep says to Trino."""

import pytest

from dags.upkeep.tables import LEAST_ORPHAN_HOURS, BadRetention, Done, Measure, hours_of, quoted, shown, statement


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
    done = Done("lake.bronze.events", "compact", Measure(1200, 3_400_000, 9, 2.5), Measure(1, 1_000_000, 10, 0.25), 4.04)
    assert shown([done]) == [
        "table               files       MB          snapshots  query s       took s",
        "lake.bronze.events  1,200 -> 1  3.4 -> 1.0  9 -> 10    2.50 -> 0.25  4.0",
    ]
    assert done.as_row()["before_files"] == 1200
