"""Upkeep of the lake's tables by Trino: `python -m dags.upkeep.main compact`. Prints a table, and one line of JSON for each table.

Each work is one statement for a table and one commit, so it can be killed anywhere and done again. A table that somebody changes in the
same moment keeps what they wrote: Iceberg lets the rewrite fail, and it is tried again with the next run.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import requests
from trino.exceptions import Error, TrinoQueryError

from dags.runs import trino_statements
from dags.upkeep.tables import WORK, BadRetention, Done, Measure, hours_of, metadata, quoted, shown, statement
from headrace.trino import connection

CATALOG = "lake"
_LAYERS = ("bronze", "silver", "gold")
# Of Trino's answers: another writer was faster; the table was dropped meanwhile.
_CHANGED = ("TRANSACTION_CONFLICT", "ICEBERG_COMMIT_ERROR", "TABLE_NOT_FOUND")


def look(cursor: Any, table: str) -> Measure:
    """Measure a table. Raises TrinoQueryError."""
    cursor.execute(f"SELECT count(*), coalesce(sum(file_size_in_bytes), 0) FROM {metadata(table, 'files')}")
    [[files, size]] = cursor.fetchall()
    cursor.execute(f"SELECT count(*) FROM {metadata(table, 'snapshots')}")
    [[snapshots]] = cursor.fetchall()
    cursor.execute(f"SHOW COLUMNS FROM {quoted(table)}")
    column = cursor.fetchall()[0][0]
    began = time.monotonic()
    cursor.execute(f"SELECT count(*), checksum({quoted(column)}) FROM {quoted(table)}")
    cursor.fetchall()
    return Measure(files, size, snapshots, round(time.monotonic() - began, 3))


def keep(cursor: Any, work: str, table: str, history_hours: int) -> Done:
    """Do `work` to a table. Raises TrinoQueryError where that failed for another reason than that somebody changed the table meanwhile."""
    began, started_at = time.monotonic(), datetime.now(UTC)
    after = before = look(cursor, table)
    problem = None
    try:
        cursor.execute(statement(work, table, history_hours))
        cursor.fetchall()
        after = look(cursor, table)
    except TrinoQueryError as error:
        if error.error_name not in _CHANGED:
            raise
        problem = f"changed meanwhile, left for the next run ({error.error_name})"
    return Done(table, work, before, after, started_at, round(time.monotonic() - began, 2), problem)


def remember(cursor: Any, done: Sequence[Done], run_id: str) -> None:
    """Put what was done into lake.gold.runs. Raises TrinoQueryError."""
    for each, values in trino_statements([one.cost(run_id) for one in done]):
        cursor.execute(each, values or None)
        cursor.fetchall()


def tables(cursor: Any) -> Iterator[str]:
    """Every table of the lake's layers."""
    for layer in _LAYERS:
        cursor.execute(
            f"SELECT table_name FROM {CATALOG}.information_schema.tables"
            f" WHERE table_schema = '{layer}' AND table_type = 'BASE TABLE' ORDER BY table_name"
        )
        yield from (f"{CATALOG}.{layer}.{name}" for [name] in cursor.fetchall())


def cursor_of(env: Mapping[str, str], source: str = "maintain") -> Any:
    """Trino, allowed to forget history as young as the settings say. `source`: what its list of queries calls us."""
    youngest = {f"{CATALOG}.{what}_min_retention": "0s" for what in ("expire_snapshots", "remove_orphan_files")}
    return connection(env, source, session_properties=youngest).cursor()


def main() -> None:
    """One work for every table, with the settings of the environment."""
    if sys.argv[1:2] not in [[work] for work in WORK]:
        sys.exit(f"upkeep: say one of {', '.join(WORK)}")
    work, env = sys.argv[1], os.environ
    if missing := [name for name in ("TRINO_URL", "TRINO_USER", "MAINTENANCE_HISTORY") if not env.get(name)]:
        sys.exit(f"upkeep: not set: {', '.join(missing)} (see .env.example; `make up` passes all of them to Airflow)")
    done, failed = [], []
    try:
        hours = hours_of(env["MAINTENANCE_HISTORY"])
        cursor = cursor_of(env)
        for table in list(tables(cursor)):
            print(f"{work} {table}", flush=True)
            try:
                done.append(keep(cursor, work, table, hours))
            except TrinoQueryError as error:  # the others have their turn all the same
                failed.append(f"{table}: {' '.join(error.message.split())}")
        remember(cursor, done, env.get("AIRFLOW_CTX_DAG_RUN_ID", f"manual__{datetime.now(UTC).isoformat()}"))
    except BadRetention as error:
        sys.exit(f"upkeep: {error}")
    except (Error, requests.RequestException) as error:
        sys.exit(f"upkeep: Trino at {env['TRINO_URL']}: {' '.join(str(error).split())}")
    print("\n".join(shown(done)))
    for one in done:
        print(json.dumps(one.as_row()))
    if failed:
        sys.exit("\n".join(f"upkeep: {work} {problem}" for problem in failed))


if __name__ == "__main__":
    main()
