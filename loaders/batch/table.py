"""A bronze table: files of rows and the Kafka offsets behind them, in one Iceberg commit.

The table property `headrace.offset.<topic>.<partition>` is the next offset to read. Why no row is lost or doubled:

1. Rows and properties are one commit: after any kill, either both are there or neither is.
2. Each commit carries the requirement that the properties are still what we last saw (`_OffsetsUnchanged`). The catalog checks it against
   the metadata that the commit then replaces by compare-and-swap. PyIceberg repeats a commit that lost against a foreign one (a compaction,
   say), and checks it anew each time: so a repetition passes only where no other loader came between.
3. After a commit whose outcome is unknown, what the table says decides. Nothing is deleted: files of a commit that did not land are
   orphans, and the maintenance of the table removes them.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Literal

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NamespaceAlreadyExistsError, NoSuchTableError, TableAlreadyExistsError
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import RemoveSnapshotsUpdate, SetPropertiesUpdate, ValidatableTableRequirement
from pyiceberg.transforms import DayTransform
from pyiceberg.types import IcebergType, IntegerType, LongType, NestedField, StringType, TimestamptzType
from sqlalchemy.exc import SQLAlchemyError

from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line
from headrace.messages import Partition
from headrace.runner import Rewind
from loaders.batch.files import write_files

Offsets = Mapping[Partition, int]

_PROPERTY = "headrace.offset"
_TYPES: dict[pa.DataType, IcebergType] = {
    pa.string(): StringType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
}
_PROPERTIES = {
    "write.parquet.compression-codec": "zstd",
    "commit.manifest-merge.enabled": "true",  # one manifest for each commit would make reading slow after a day
    "write.delete.isolation-level": "snapshot",  # who deletes rows need not begin again for each commit of ours
    "write.metadata.delete-after-commit.enabled": "true",  # of old metadata.json only; snapshots and data are left to maintenance
    "write.metadata.previous-versions-max": "100",
}


# Every commit reads and writes all that the metadata says, so it must not grow for ever: with 2,000 snapshots it is 1.3 MB and costs 40 ms,
# with those of five days of commits every ten seconds it would be 28 MB and 1.7 s.
_MOST_SNAPSHOTS = 2000
_TOO_MANY = 100  # that many more go at once


def _key(partition: Partition) -> str:
    return f"{_PROPERTY}.{partition[0]}.{partition[1]}"


class _OffsetsUnchanged(ValidatableTableRequirement):
    """The properties still have these values (None: they are not there)."""

    type: Literal["headrace-offsets-unchanged"] = "headrace-offsets-unchanged"
    seen: dict[str, str | None]

    def validate(self, base_metadata: TableMetadata | None) -> None:  # type: ignore[override]  # as PyIceberg's own
        now = base_metadata.properties if base_metadata else {}
        changed = [key for key, value in self.seen.items() if now.get(key) != value]
        if changed:
            raise CommitFailedException(f"another loader has written: {changed[0]} is {now.get(changed[0])}, not {self.seen[changed[0]]}")


def open_table(catalog: SqlCatalog, identifier: str, schema: pa.Schema, day_of: str) -> Table:
    """The table `identifier`, made where it is not there yet, partitioned by the day of column `day_of`. Raises Unavailable."""
    try:
        with suppress(NoSuchTableError):
            return catalog.load_table(identifier)
        with suppress(NamespaceAlreadyExistsError):  # another copy was quicker, as below
            catalog.create_namespace_if_not_exists(identifier.rpartition(".")[0])
        with suppress(TableAlreadyExistsError):
            return _made(catalog, identifier, schema, day_of)
        return catalog.load_table(identifier)
    except (SQLAlchemyError, OSError) as error:
        raise _unavailable(identifier, error) from error


def _made(catalog: SqlCatalog, identifier: str, schema: pa.Schema, day_of: str) -> Table:
    fields = Schema(*(NestedField(place, field.name, _TYPES[field.type]) for place, field in enumerate(schema, start=1)))
    day = PartitionField(fields.find_field(day_of).field_id, 1000, DayTransform(), f"{day_of}_day")
    return catalog.create_table(identifier, fields, partition_spec=PartitionSpec(day), properties=_PROPERTIES)


class BronzeTable:
    """One table and the topics that go into it. Every method raises Unavailable while the catalog or the store is down."""

    def __init__(self, table: Table, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        self._table = table
        self._name = ".".join(table.name())
        self._seen: dict[Partition, int | None] = {}

    def look_up(self, partitions: Collection[Partition]) -> dict[Partition, int | None]:
        """Where reading goes on, as the table says now; None where it has nothing of a partition. Later commits build on this."""
        found = self._offsets(partitions)
        self._seen.update(found)
        return found

    def _offsets(self, partitions: Collection[Partition]) -> dict[Partition, int | None]:
        try:
            properties = self._table.refresh().properties
        except (SQLAlchemyError, OSError) as error:
            raise _unavailable(self._name, error) from error
        said = {partition: properties.get(_key(partition)) for partition in partitions}
        return {partition: None if text is None else int(text) for partition, text in said.items()}

    def write(self, rows: pa.Table) -> list[DataFile]:
        """Put `rows` into files that nobody sees before a commit names them."""
        try:
            return write_files(self._table, rows)
        except OSError as error:
            raise _unavailable(self._name, error) from error

    def append(self, files: Sequence[DataFile], offsets: Offsets) -> None:
        """Add `files` and move to `offsets`, unless the table is there already (an earlier attempt did land).

        Raises Rewind where another loader has written from these partitions since `look_up`.
        """
        seen = {partition: self._seen.get(partition) for partition in offsets}
        now = self._offsets(offsets)
        if now == seen != offsets:
            try:
                self._commit(files, seen, offsets)
                now = dict(offsets)
            except (CommitFailedException, SQLAlchemyError, OSError) as error:
                now = self._offsets(offsets)
                if now == seen:
                    raise _unavailable(self._name, error) from error
        if now != offsets:
            raise Rewind(f"{self._name}: another loader has written from the same partitions")
        self._seen.update(now)

    def _commit(self, files: Sequence[DataFile], seen: Mapping[Partition, int | None], offsets: Offsets) -> None:
        moved = SetPropertiesUpdate(updates={_key(partition): str(offset) for partition, offset in offsets.items()})
        unchanged = _OffsetsUnchanged(seen={_key(p): None if offset is None else str(offset) for p, offset in seen.items()})
        with self._table.transaction() as transaction:
            # What Transaction.set_properties does, with a requirement of our own.
            transaction._apply((moved,), (unchanged,))  # type: ignore[arg-type]  # PyIceberg names its own requirements only
            if old := _old_snapshots(self._table.metadata):
                transaction._apply((RemoveSnapshotsUpdate(snapshot_ids=old),))  # type: ignore[call-arg]  # its alias or its name
            if files:
                with transaction.update_snapshot().merge_append() as snapshot:
                    for file in files:
                        snapshot.append_data_file(file)


def _old_snapshots(metadata: TableMetadata) -> list[int]:
    """Those to forget. Their rows are in the newer ones too; what a person tagged stays."""
    if len(metadata.snapshots) < _MOST_SNAPSHOTS + _TOO_MANY:
        return []
    named = {ref.snapshot_id for ref in metadata.refs.values()}
    by_age = sorted(metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    return [snapshot.snapshot_id for snapshot in by_age[:-_MOST_SNAPSHOTS] if snapshot.snapshot_id not in named]


def _unavailable(name: str, error: Exception) -> Unavailable:
    return Unavailable(f"lake, {name}: {in_a_line(error)}")
