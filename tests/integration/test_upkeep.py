"""Upkeep of the lake's tables with the real Trino, on tables of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.exceptions import CommitFailedException

from dags.runs import RUNS
from dags.upkeep import main as upkeep
from dags.upkeep.tables import WORK, statement
from tests.integration import lakes

pytestmark = pytest.mark.usefixtures("platform")

ROWS = pa.schema([pa.field("id", pa.string()), pa.field("amount", pa.float64())])
COMMITS = 12


@pytest.fixture(scope="module")
def cursor() -> Any:
    return upkeep.cursor_of(os.environ)


@pytest.fixture
def table() -> Iterator[str]:
    """A table that a loader made in small commits, and one file in its folder that no commit names."""
    with lakes.namespace() as namespace:
        catalog = lakes.catalog()
        catalog.create_namespace(namespace)
        made = catalog.create_table(f"{namespace}.events", ROWS, properties={"headrace.offset.x.0": "7"})
        for number in range(COMMITS):
            made.append(pa.table({"id": [f"{number}"], "amount": [number / 4]}, schema=ROWS))
        yield f"lake.{namespace}.events"


def rows(cursor: Any, table: str) -> list[list[Any]]:
    cursor.execute(f"SELECT id, amount FROM {table} ORDER BY amount")
    found: list[list[Any]] = cursor.fetchall()
    return found


def iceberg(table: str) -> Any:
    return lakes.catalog().load_table(table.removeprefix("lake."))


def test_a_table_of_many_small_files_becomes_one_and_holds_the_same(cursor: Any, table: str) -> None:
    before = rows(cursor, table)
    done = {work: upkeep.keep(cursor, work, table, 0) for work in WORK}
    assert all(one.problem is None for one in done.values())
    compact, expire = done["compact"], done["expire"]
    assert (compact.before.files, compact.after.files) == (COMMITS, 1)
    assert compact.after.bytes < compact.before.bytes
    assert (expire.before.snapshots, expire.after.snapshots) == (COMMITS + 1, 1)
    assert rows(cursor, table) == before
    assert len(before) == COMMITS
    assert iceberg(table).properties["headrace.offset.x.0"] == "7"
    cursor.execute(f"SHOW STATS FOR {table}")
    assert {row[0]: row[2] for row in cursor.fetchall()}["id"] == COMMITS


def test_what_was_done_is_among_the_runs(cursor: Any, table: str) -> None:
    run_id = f"test-{table}"
    try:
        done = upkeep.keep(cursor, "compact", table, 0)
        upkeep.remember(cursor, [done], run_id)
        cursor.execute(f"SELECT job, table_name, started_at, files_before, files_after, rows_read FROM {RUNS} WHERE run_id = '{run_id}'")
        assert cursor.fetchall() == [["compact", table, done.started_at, COMMITS, 1, None]]
    finally:
        cursor.execute(f"DELETE FROM {RUNS} WHERE run_id = '{run_id}'")
        cursor.fetchall()


def test_history_that_is_young_enough_stays(cursor: Any, table: str) -> None:
    expire = upkeep.keep(cursor, "expire", table, 24)
    assert (expire.before.snapshots, expire.after.snapshots) == (COMMITS, COMMITS)


def test_what_no_table_names_is_removed_once_it_is_old(cursor: Any, table: str) -> None:
    made = iceberg(table)
    named = [task.file.file_path for task in made.scan().plan_files()]
    orphan = f"{Path(named[0]).parent}/left-by-a-killed-writer.parquet".replace("s3:/", "s3://")
    with made.io.new_output(orphan).create() as file:
        file.write(b"PAR1")
    upkeep.keep(cursor, "sweep", table, 1)
    assert made.io.new_input(orphan).exists()
    cursor.execute(statement("sweep", table, 1).replace("24h", "0s"))
    cursor.fetchall()
    assert not made.io.new_input(orphan).exists()
    assert all(made.io.new_input(name).exists() for name in named)


def test_a_writer_that_began_before_a_compaction_still_appends(cursor: Any, table: str) -> None:
    writer = iceberg(table)
    upkeep.keep(cursor, "compact", table, 24)
    try:
        writer.append(pa.table({"id": ["late"], "amount": [99.0]}, schema=ROWS))
    except CommitFailedException:  # as the batch loader does
        iceberg(table).append(pa.table({"id": ["late"], "amount": [99.0]}, schema=ROWS))
    assert rows(cursor, table)[-1] == ["late", 99.0]
    assert len(rows(cursor, table)) == COMMITS + 1


def test_every_table_of_the_lake_is_kept(cursor: Any) -> None:
    found = list(upkeep.tables(cursor))
    assert "lake.bronze.events" in found
    assert all(name.split(".")[1] in ("bronze", "silver", "gold") for name in found)
