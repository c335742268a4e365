"""Erasing a person from the lake, by Trino: rows are found, deleted, and then made to be nowhere. Any step may be cut off and repeated."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import stamina
from trino.exceptions import TrinoQueryError

from cli.chunks import chunks
from cli.privacy import person as who
from cli.privacy.person import Person
from dags.curation.options import LOCK
from dags.upkeep.tables import metadata, quoted

SOURCE = "headrace privacy erase"  # what Trino's list of queries calls an erasure
_LAYERS = ("bronze", "silver", "gold")
_AT_ONCE = 8  # tables in one question
# Trino's words for: another writer committed to the table in between.
_CHANGED = ("TRANSACTION_CONFLICT", "ICEBERG_COMMIT_ERROR")
Say = Callable[[str], None]


class Busy(Exception):
    """Somebody else holds what is needed for longer than one waits, or has taken it; the message says who."""


@dataclass(frozen=True)
class Size:
    """What a table consists of: data files, and snapshots of which its history consists."""

    files: int
    snapshots: int


@contextmanager
def alone(url: str, wait: float) -> Iterator[Callable[[], None]]:
    """Hold the lock of curation, which would otherwise write to silver what is being erased, waiting up to `wait` seconds. What is yielded
    raises Busy where the lock was lost with the connection. Raises psycopg2.Error where PostgreSQL is not there."""
    with closing(psycopg2.connect(url, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        deadline = time.monotonic() + wait
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", (LOCK,))
            if cursor.fetchone() == (True,):
                break
            if time.monotonic() > deadline:
                raise Busy(f"a curation or another erasure has run for {wait:.0f} seconds: try again when it has ended")
            time.sleep(1)

        def held() -> None:
            try:
                cursor.execute("SELECT 1")
            except psycopg2.Error:
                raise Busy("the connection that keeps curation away was lost: run it again, it goes on where it was") from None

        yield held


class Lake:
    """The tables of the lake through a cursor of Trino that may forget young history. Every method raises trino's errors."""

    def __init__(self, cursor: Any, say: Say) -> None:
        self._cursor = cursor
        self.say = say

    def tables(self) -> dict[str, frozenset[str]]:
        """The columns of each table of the lake's layers."""
        layers = ", ".join(map(who.literal, _LAYERS))
        rows = self._rows(
            "SELECT t.table_schema, t.table_name, array_agg(c.column_name) FROM lake.information_schema.tables t"
            " JOIN lake.information_schema.columns c ON t.table_schema = c.table_schema AND t.table_name = c.table_name"
            f" WHERE t.table_schema IN ({layers}) AND c.table_schema IN ({layers}) AND t.table_type = 'BASE TABLE'"
            " GROUP BY 1, 2 ORDER BY 1, 2"
        )
        return {f"lake.{schema}.{name}": frozenset(columns) for schema, name, columns in rows}

    def count(self, conditions: Mapping[str, str]) -> dict[str, int]:
        """How many rows of each table are true. Of several tables in one question: to plan one costs more than to look into a table."""
        found: dict[str, int] = {}
        tables = list(conditions)
        for several in chunks(tables, _AT_ONCE):
            self.say(f"looking into {several[0]} … {several[-1]}")
            counts = (f"SELECT {who.literal(table)}, count(*) FROM {quoted(table)} WHERE {conditions[table]}" for table in several)
            found |= dict(self._rows(" UNION ALL ".join(counts)))
        return {table: found[table] for table in tables}

    def sources(self, condition: str) -> dict[str, int]:
        """By source, the events in bronze for which `condition` is true."""
        return dict(self._rows(f"SELECT source, count(*) FROM {quoted(who.BRONZE)} WHERE {condition} GROUP BY 1 ORDER BY 1"))

    def also_called(self, person: Person) -> list[str]:
        """Other subjects that events of type alias say the person is."""
        names, alias = ", ".join(map(who.literal, person.names)), quoted(who.ALIASES)
        rows = self._rows(
            f"SELECT previous_id FROM {alias} WHERE subject IN ({names}) UNION SELECT subject FROM {alias} WHERE previous_id IN ({names})"
        )
        return sorted({name for [name] in rows if name is not None} - set(person.names))

    def unnamed_letters(self, person: Person) -> list[str]:
        """Ids of the dead letters that hold the person and do not say so in their attributes."""
        return [id for [id] in self._rows(f"SELECT DISTINCT dead_letter_id FROM {quoted(who.BRONZE_LETTERS)} WHERE {who.unnamed(person)}")]

    def size(self, table: str) -> Size:
        """What a table consists of now."""
        counts = (f"(SELECT count(*) FROM {metadata(table, what)})" for what in ("files", "snapshots"))
        [[files, snapshots]] = self._rows(f"SELECT {', '.join(counts)}")
        return Size(files, snapshots)

    def delete(self, conditions: Mapping[str, str]) -> dict[str, int]:
        """Delete the rows for which the conditions are true. The numbers of rows deleted, by table.

        A build of gold that runs at the same time may write what it read before: it is waited for, and silver and gold are looked into
        again. (Bronze is not: what comes there now is of an event that came later.)
        """
        gone: dict[str, int] = {}
        wanted = conditions
        while True:
            building = self._running("source LIKE 'dbt%'")  # may hold rows that it read before these are deleted
            found = {table: rows for table, rows in self.count(wanted).items() if rows}
            wanted = {table: condition for table, condition in conditions.items() if not table.startswith("lake.bronze.")}
            for table, rows in found.items():
                self.say(f"deleting {rows:,} rows of {table}")
                self._change(f"DELETE FROM {quoted(table)} WHERE {conditions[table]}")
                gone[table] = gone.get(table, 0) + rows
            if not found and not building:
                return gone
            if building:
                self.say("waiting for a build of gold that had begun before")
                time.sleep(2)

    def end_earlier(self) -> None:
        """End what an erasure that was killed has left running in Trino, which notices only after minutes. Only for who is alone."""
        for id in self._running(f"source = {who.literal(SOURCE)} AND query NOT LIKE '%system.runtime.queries%'"):
            with suppress(TrinoQueryError):  # it has ended by itself
                self._rows(f"CALL system.runtime.kill_query(query_id => {who.literal(id)}, message => 'a later erasure goes on')")

    def _running(self, condition: str) -> list[str]:
        rows = self._rows(f"SELECT query_id FROM system.runtime.queries WHERE state NOT IN ('FINISHED', 'FAILED') AND {condition}")
        return [id for [id] in rows]

    def clear_emptied(self) -> None:
        """Delete the sums of gold that stand for nothing any more."""
        tables = self.tables()
        for table, (of, condition) in who.EMPTIED.items():
            if table in tables and of in tables:
                self.say(f"deleting sums of nothing from {table}")
                self._change(f"DELETE FROM {quoted(table)} WHERE {condition.format(of=quoted(of))}")

    def rewrite(self, table: str, orphans_after: str) -> None:
        """Leave nothing of deleted rows in the object store: neither in data files, nor in manifests, nor in history."""
        self._execute(table, *who.REWRITE)
        if self._named_removed(table) and (smallest := self._smallest_file(table)):
            # Trino leaves a table's only manifest as it is. A change of any file in it makes a second one, and writes the first anew.
            [column, *_] = self._rows(f"SHOW COLUMNS FROM {quoted(table)}")
            name = quoted(column[0])
            self._change(f'UPDATE {quoted(table)} SET {name} = {name} WHERE "$path" = {who.literal(smallest)}')
            self._execute(table, *who.REWRITE)
        self._execute(table, who.FORGET, who.SWEEP.format(age=orphans_after))

    def _execute(self, table: str, *works: str) -> None:
        for work in works:
            self.say(f"{table}: {work.partition('(')[0]}")
            self._change(f"ALTER TABLE {quoted(table)} EXECUTE {work}")

    def _named_removed(self, table: str) -> bool:
        """Whether a manifest still says something of a file that was removed."""
        [[removed]] = self._rows(f"SELECT sum(deleted_data_files_count) FROM {metadata(table, 'manifests')}")
        return bool(removed)

    def _smallest_file(self, table: str) -> str | None:
        rows = self._rows(f"SELECT file_path FROM {metadata(table, 'files')} WHERE content = 0 ORDER BY record_count LIMIT 1")
        return str(rows[0][0]) if rows else None

    def unfinished(self, person: Person) -> bool:
        """Whether an erasure of the person was begun and not ended, by the record of erasures."""
        [[begun]] = self._rows(who.unfinished(person))
        return bool(begun)

    def make_record(self) -> None:
        """The table of records, where it is not there yet."""
        for statement in who.MAKE_AUDIT:
            self._rows(statement)

    def record(self, statement: str) -> None:
        """Write the record of an erasure."""
        self._change(statement)

    def _rows(self, statement: str) -> list[list[Any]]:
        self._cursor.execute(statement)
        rows: list[list[Any]] = self._cursor.fetchall()
        return rows

    @stamina.retry(on=lambda error: isinstance(error, TrinoQueryError) and error.error_name in _CHANGED, attempts=30, timeout=None)
    def _change(self, statement: str) -> None:
        self._rows(statement)
