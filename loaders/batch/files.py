"""Rows into Parquet files of an Iceberg table, before any commit: files that no commit names, nobody sees.

PyIceberg's own `append` would copy all rows twice to sort them by partition, and keep one row group as large as the batch.
"""

import uuid
from collections.abc import Iterator
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.fileformat import FileFormatFactory
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table

_ROW_GROUP_BYTES = 32_000_000  # of rows in memory


def write_files(table: Table, rows: pa.Table) -> list[DataFile]:
    """One file for each partition of `table` that `rows` belong to. Raises OSError where the store does not take them."""
    return [_written(table, key, part) for key, part in _parts(table, rows)] if rows.num_rows else []


def _parts(table: Table, rows: pa.Table) -> Iterator[tuple[PartitionKey, pa.Table]]:
    schema, spec = table.schema(), table.spec()
    keys = {
        field.name: field.transform.pyarrow_transform(schema.find_type(field.source_id))(rows[schema.find_column_name(field.source_id)])
        for field in spec.fields
    }
    for found in pa.table(keys).group_by(list(keys)).aggregate([]).to_pylist():
        key = PartitionKey([PartitionFieldValue(field, found[field.name]) for field in spec.fields], spec, schema)
        fits = reduce(pc.and_, [pc.is_in(keys[name], pa.array([value], keys[name].type)) for name, value in found.items()])
        yield key, rows if pc.all(fits).as_py() else rows.filter(fits)


def _written(table: Table, key: PartitionKey, rows: pa.Table) -> DataFile:
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet", key)
    output = table.io.new_output(path)
    rows = rows.cast(_with_field_ids(table, rows.schema))
    with FileFormatFactory.get(FileFormat.PARQUET).create_writer(output, table.schema(), table.properties) as writer:
        for group in _groups(rows):
            writer.write(group)
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=key.partition,
        file_size_in_bytes=len(output),
        spec_id=table.spec().spec_id,
        **writer.result().to_serialized_dict(),
    )


def _with_field_ids(table: Table, schema: pa.Schema) -> pa.Schema:
    """Iceberg knows a column by its number, also after it was renamed."""
    number = {field.name: str(table.schema().find_field(field.name).field_id) for field in schema}
    return pa.schema([field.with_metadata({"PARQUET:field_id": number[field.name]}) for field in schema])


def _groups(rows: pa.Table) -> Iterator[pa.Table]:
    """Parts that become one row group each: the file is written while it grows, so not all of it is in memory a second time."""
    each = max(1, rows.num_rows * _ROW_GROUP_BYTES // max(1, rows.nbytes))
    for start in range(0, rows.num_rows, each):
        yield rows.slice(start, each)
