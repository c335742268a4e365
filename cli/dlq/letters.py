"""Dead letters as the lake has them, read a piece at a time: memory does not grow with their number.

The lake is the whole history (Kafka forgets after its retention, and Elasticsearch is an index that can be made again), it can be asked by
reason, type or day without being read as a whole, and it needs no other server than the batch loader does. It lags behind Kafka by
BATCH_LOADER_MAX_AGE_SECONDS and a commit.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, In, LessThan
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import DataScan, FileScanTask, Table
from sqlalchemy.exc import SQLAlchemyError

from cli.dlq.filters import COLUMNS, Filter
from headrace import event
from headrace.dead_letter import DeadLetter, Reason, Unavailable
from headrace.errors import in_a_line
from headrace.lake import LakeSettings, load_catalog

TABLE = "bronze.dead_letters"
_MOMENT = pa.timestamp("us", tz="UTC")
_ROWS = 500  # in memory at a time; a letter has at most 1 MB
_BUFFER_BYTES = 1 << 20


def _pushed_down(wanted: Filter) -> BooleanExpression:
    """For Iceberg, which leaves out the files that hold nothing of it."""
    found: BooleanExpression = AlwaysTrue()
    for name, values in wanted.values():
        found = And(found, In(name, values))  # type: ignore[call-arg,arg-type]  # PyIceberg's own way to call it
    if wanted.since:
        found = And(found, GreaterThanOrEqual("rejected_at", wanted.since.isoformat()))  # type: ignore[call-arg,arg-type]
    if wanted.until:
        found = And(found, LessThan("rejected_at", wanted.until.isoformat()))  # type: ignore[call-arg,arg-type]
    return found


def _passing(rows: pa.Table, wanted: Filter) -> pa.Table:
    found = pc.scalar(True)
    for name, values in wanted.values():
        found &= pc.field(name).isin(values)
    if wanted.since:
        found &= pc.field("rejected_at") >= pa.scalar(wanted.since, _MOMENT)
    if wanted.until:
        found &= pc.field("rejected_at") < pa.scalar(wanted.until, _MOMENT)
    return rows.filter(found)


def open_letters(env: Mapping[str, str]) -> "Letters":
    """`lake.bronze.dead_letters`. Raises Unavailable where the catalog or the store does not answer."""
    catalog = load_catalog(LakeSettings.of(env))
    try:
        return Letters(catalog.load_table(TABLE))
    except NoSuchTableError:  # the batch loader has not begun
        return Letters(None)
    except (SQLAlchemyError, OSError) as error:
        raise _unavailable(error) from error


class Letters:
    """The dead letters of a table, as it was when it was loaded. Methods raise Unavailable where the store does not answer."""

    def __init__(self, table: Table | None) -> None:
        """None: there are none yet."""
        self._table = table

    @property
    def read_to(self) -> dict[tuple[str, int], int]:
        """The next offset that the lake wants of each partition of Kafka."""
        found = {}
        for name, value in (self._table.properties if self._table else {}).items():
            if name.startswith("headrace.offset."):
                topic, _, partition = name.removeprefix("headrace.offset.").rpartition(".")
                found[topic, int(partition)] = int(value)
        return found

    def rows(self, wanted: Filter, columns: Sequence[str] = COLUMNS) -> Iterator[pa.Table]:
        """`columns` of what passes `wanted`, at most some hundred rows at a time, roughly the oldest first. A letter may come twice."""
        if self._table is None:
            return
        scan = self._table.scan(row_filter=_pushed_down(wanted), selected_fields=tuple({*columns, *wanted.columns}))
        began = self._table.schema().find_field("rejected_at").field_id
        try:
            for task in sorted(scan.plan_files(), key=lambda task: _lowest(task, began)):
                for rows in _rows_in(scan, task):
                    found = _passing(rows, wanted)
                    if found.num_rows:
                        yield found.select(list(columns))
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(error) from error

    def distinct(self, wanted: Filter, columns: Sequence[str] = COLUMNS) -> Iterator[dict[str, Any]]:
        """`columns` of each letter that passes `wanted`, once."""
        seen = Ids()
        for rows in self.rows(wanted, list({*columns, "dead_letter_id"})):
            found = rows.to_pylist()
            new = seen.new([row["dead_letter_id"] for row in found])
            for row in found:
                if row["dead_letter_id"] in new:
                    new.remove(row["dead_letter_id"])
                    yield row

    def each(self, wanted: Filter) -> Iterator[DeadLetter]:
        """Each letter that passes `wanted`, once."""
        return map(letter_of, self.distinct(wanted))


def _rows_in(scan: DataScan, task: FileScanTask) -> Iterator[pa.Table]:
    """What stands in one file. (PyIceberg's own reader loads whole files, all at once: it is left to files of which rows were deleted.)"""
    wanted = scan.projection()
    if task.delete_files:
        for batch in ArrowScan(scan.table_metadata, scan.io, wanted, AlwaysTrue()).to_record_batches([task]):
            yield pa.Table.from_batches([batch])
        return
    names = [field.name for field in wanted.fields]
    with scan.io.new_input(task.file.file_path).open() as file:
        parquet = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        there = [name for name in names if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(_ROWS, columns=there, use_threads=False):
            yield pa.Table.from_batches([batch])


def _lowest(task: FileScanTask, column: int) -> int:
    """The lowest value of a column of moments in a file, as Iceberg writes it (specification, appendix D)."""
    return int.from_bytes(task.file.lower_bounds.get(column, b""), "little", signed=True)


def letter_of(row: Mapping[str, Any]) -> DeadLetter:
    """The letter in a row of the lake that has all COLUMNS."""
    moments = {name: event.rfc3339(row[name]) for name in ("rejected_at", "received_at") if row[name] is not None}
    return DeadLetter(**{**row, **moments, "reason": Reason(row["reason"])})


class Ids:
    """A set of ids on disk, in a file that goes with the process: a million of them cost no memory."""

    def __init__(self) -> None:
        self._file = sqlite3.connect("")  # SQLite's own temporary file
        self._file.execute("PRAGMA cache_size = -16000")  # KB; what is beyond goes to the file
        self._file.execute("CREATE TABLE ids (id TEXT PRIMARY KEY) WITHOUT ROWID")

    def new(self, ids: Sequence[str]) -> set[str]:
        """Those of `ids` that were not in it; they are now."""
        found = {id for id in ids if id not in self}
        self._file.executemany("INSERT INTO ids VALUES (?)", [(id,) for id in found])
        return found

    def __contains__(self, id: str) -> bool:
        return self._file.execute("SELECT 1 FROM ids WHERE id = ?", (id,)).fetchone() is not None


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"the lake: {in_a_line(error)}")
