"""The lake, as the tests of the batch loader look at it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pyiceberg.catalog.sql import SqlCatalog

from headrace import lake
from headrace.settings import Settings


class LakeOnly(lake.LakeSettings, Settings):
    """Where the lake of the tests is."""


def catalog() -> SqlCatalog:
    return lake.load_catalog(LakeOnly.load())


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
