"""The lake, as the tests look at it."""

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from dags.curation import plan
from headrace import lake

_SCHEMAS = Path(__file__).parents[2] / "schemas"
_SCALARS = {"string": pa.string(), "bigint": pa.int64(), "double": pa.float64(), "boolean": pa.bool_(), "date": pa.date32()}
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_ATTRIBUTES = dict.fromkeys(("time", "received_at", "enriched_at", "loaded_at"), _TIMESTAMP) | {
    "kafka_partition": pa.int32(),
    "kafka_offset": pa.int64(),
}


def catalog() -> SqlCatalog:
    return lake.load_catalog(lake.LakeSettings.load())


def column(table: str, name: str) -> list[str]:
    """One column of a table; empty where there is no such table yet."""
    ours = catalog()
    if not ours.table_exists(table):
        return []
    values: list[str] = ours.load_table(table).scan(selected_fields=(name,)).to_arrow()[name].to_pylist()
    return values


def drop(namespace: str) -> None:
    """Remove a namespace with its tables, if it is there."""
    ours = catalog()
    if ours.namespace_exists(namespace):
        for table in ours.list_tables(namespace):
            ours.purge_table(table)
        ours.drop_namespace(namespace)


@contextmanager
def namespace() -> Iterator[str]:
    """A name for the bronze tables of one test, which are removed with it."""
    name = f"bronze_test_{uuid.uuid4().hex[:8]}"
    yield name
    drop(name)


class Silver:
    """The typed tables of silver, as curation makes them from the tracking plan, in a namespace of their own: written without Spark."""

    def __init__(self, namespace: str) -> None:
        self._catalog, self._namespace = catalog(), namespace
        self._catalog.create_namespace(namespace)
        self._schemas = {name: _columns(table) for name, table in plan.tables(plan.read_plan(_SCHEMAS)).items()}
        for name, schema in self._schemas.items():
            self._catalog.create_table((namespace, name), schema)

    def append(self, type: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the table of an event type, in one commit; a column that a row does not name is null."""
        table = pa.Table.from_pylist([{"type": type, **row} for row in rows], schema=self._schemas[type])
        self._catalog.load_table((self._namespace, type)).append(table)

    def close(self) -> None:
        """Remove the tables."""
        drop(self._namespace)
        self._catalog.close()


def _columns(table: plan.Table) -> pa.Schema:
    attributes = [(name, _ATTRIBUTES.get(name, pa.string())) for name in plan.ATTRIBUTES]
    return pa.schema([*attributes, *((each.column, _arrow(each.type)) for each in table.columns)])


def _arrow(type: plan.ColumnType) -> pa.DataType:
    match type:
        case plan.Array(of):
            return pa.list_(_arrow(of))
        case plan.Struct(fields):
            return pa.struct([(each.column, _arrow(each.type)) for each in fields])
        case plan.Scalar("timestamp"):
            return _TIMESTAMP
    return _SCALARS[type.name]
