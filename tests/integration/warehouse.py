"""A silver and a gold schema of our own in the lake, dbt run on them, and Trino to look at them."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trino.dbapi import Connection, connect

from dags.headrace_environments import dbt_paths
from tests.integration.lakes import Silver

ROOT = Path(__file__).parent.parent.parent


class Warehouse:
    """Silver to write to, gold to look at; `output` is where dbt leaves what it writes."""

    def __init__(self, connection: Connection, output: Path) -> None:
        name = uuid.uuid4().hex[:12]
        self.silver_schema, self.gold_schema = f"test_silver_{name}", f"test_gold_{name}"
        self.silver = Silver(self.silver_schema)
        self._connection = connection
        self._output = output

    def sql(self, statement: str) -> list[list[Any]]:
        """The rows of a statement, in which {silver} and {gold} stand for our schemas."""
        return [list(row.values()) for row in self._run(statement)]

    def rows(self, table: str, *key: str) -> dict[Any, dict[str, Any]]:
        """The rows of a gold table by the columns of `key` (by its value, where it is one), each of which must be there once."""
        rows = self._run(f"SELECT * FROM {{gold}}.{table}")
        found = {row[key[0]] if len(key) == 1 else tuple(row[name] for name in key): row for row in rows}
        assert len(found) == len(rows)
        return found

    def _run(self, statement: str) -> list[dict[str, Any]]:
        cursor = self._connection.cursor()
        cursor.execute(statement.format(silver=f"lake.{self.silver_schema}", gold=f"lake.{self.gold_schema}"))
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def snapshots(self) -> dict[str, list[int]]:
        """Every snapshot of every gold table."""
        tables = [name for (name,) in self.sql("SHOW TABLES FROM {gold}")]
        return {name: sorted(row[0] for row in self.sql(f'SELECT snapshot_id FROM {{gold}}."{name}$snapshots"')) for name in tables}

    def dbt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """dbt, as the DAG runs it."""
        variables = json.dumps({"silver_schema": self.silver_schema, "gold_schema": self.gold_schema})
        own = {**os.environ, **dbt_paths(ROOT, self._output, self._output)}
        command = [str(ROOT / ".runtime/venvs/dbt/bin/dbt"), *arguments, "--vars", variables]
        return subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=800, check=False)

    def compiled(self, model: str) -> str:
        """The SQL of a model, as it was last run."""
        return (self._output / "compiled/headrace/gold" / f"{model}.sql").read_text()

    def build(self, *arguments: str) -> None:
        """`dbt build`, which must succeed."""
        built = self.dbt("build", *arguments)
        assert built.returncode == 0, built.stdout[-5000:]


@contextmanager
def warehouse(output: Path) -> Iterator[Warehouse]:
    """A warehouse without any row, removed at the end."""
    address = urlsplit(os.environ["TRINO_URL"])
    connection = connect(host=address.hostname, port=address.port, user=os.environ["TRINO_USER"])  # type: ignore[no-untyped-call]
    made = Warehouse(connection, output)
    try:
        yield made
    finally:
        made.silver.close()
        made.sql("DROP SCHEMA IF EXISTS {gold} CASCADE")
        connection.close()
