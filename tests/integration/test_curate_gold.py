"""Silver to gold with the real dbt and Trino, in schemas of its own in the lake."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from trino.dbapi import Connection, connect

ROOT = Path(__file__).parent.parent.parent
MOMENT = "timestamp(6) with time zone"
PURCHASE = f"""id varchar, source varchar, subject varchar, time {MOMENT}, order_id varchar, session_id varchar, quantity bigint,
    amount_usd double, enrichment varchar, received_at {MOMENT}, loaded_at {MOMENT}"""
IDENTIFY = f"id varchar, source varchar, subject varchar, time {MOMENT}, email varchar, plan varchar, created_at {MOMENT}"
TABLES = ("fact_purchase", "dim_customer", "dim_date", "mart_daily_sales", "customer_features")


class Warehouse:
    """A silver and a gold schema of our own, and dbt run on them."""

    def __init__(self, connection: Connection, output: Path) -> None:
        name = uuid.uuid4().hex[:12]
        self.silver, self.gold = f"test_silver_{name}", f"test_gold_{name}"
        self._connection = connection
        self._output = output

    def sql(self, statement: str) -> list[list[Any]]:
        """The rows of a statement, in which {silver} and {gold} stand for our schemas."""
        cursor = self._connection.cursor()
        cursor.execute(statement.format(silver=f"lake.{self.silver}", gold=f"lake.{self.gold}"))
        rows: list[list[Any]] = cursor.fetchall()
        return rows

    def rows(self, table: str, key: str) -> dict[Any, dict[str, Any]]:
        """The rows of a gold table by the column `key`, of which each value must be there once."""
        cursor = self._connection.cursor()
        cursor.execute(f"SELECT * FROM lake.{self.gold}.{table}")
        rows = [dict(zip((column[0] for column in cursor.description), row, strict=True)) for row in cursor.fetchall()]
        assert len({row[key] for row in rows}) == len(rows)
        return {row[key]: row for row in rows}

    def snapshots(self) -> dict[str, list[int]]:
        """Every snapshot of every gold table."""
        return {table: [row[0] for row in self.sql(f'SELECT snapshot_id FROM {{gold}}."{table}$snapshots"')] for table in TABLES}

    def buy(self, id: str, customer: str, time: str, quantity: int, amount: float, **others: str) -> None:
        """Add a purchase to silver."""
        source, enrichment = others.get("source", "cdnow"), others.get("enrichment", "{{}}")
        loaded = f"TIMESTAMP '{others.get('loaded', '2026-11-21 12:00:00')} UTC'"
        self.sql(
            f"""INSERT INTO {{silver}}.purchase VALUES ('{id}', '{source}', '{customer}', TIMESTAMP '{time} UTC', NULL, NULL, {quantity},
            DOUBLE '{amount}', '{enrichment}', {loaded}, {loaded})"""
        )

    def build(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`dbt build`."""
        project, output = str(ROOT / "dags/models"), str(self._output)
        dbt: Mapping[str, str] = {
            "DBT_PROJECT_DIR": project,
            "DBT_PROFILES_DIR": project,
            "DBT_TARGET_PATH": output,
            "DBT_LOG_PATH": output,
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            "DBT_VERSION_CHECK": "false",
            "DBT_USE_COLORS": "false",
        }
        variables = json.dumps({"silver_schema": self.silver, "gold_schema": self.gold})
        command = [str(ROOT / ".runtime/venvs/dbt/bin/dbt"), "build", "--vars", variables, *arguments]
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **dbt}, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    address = urlsplit(os.environ["TRINO_URL"])
    connection = connect(host=address.hostname, port=address.port, user=os.environ["TRINO_USER"])  # type: ignore[no-untyped-call]
    made = Warehouse(connection, tmp_path)
    made.sql("CREATE SCHEMA {silver}")
    made.sql(f"CREATE TABLE {{silver}}.purchase ({PURCHASE})")
    made.sql(f"CREATE TABLE {{silver}}.identify ({IDENTIFY})")
    yield made
    for schema in (made.silver, made.gold):
        made.sql(f"DROP SCHEMA IF EXISTS lake.{schema} CASCADE")
    connection.close()


@pytest.mark.timeout(900)
def test_gold_holds_what_silver_holds_and_a_second_build_changes_nothing(warehouse: Warehouse) -> None:
    built = warehouse.build()
    assert built.returncode == 0, built.stdout[-3000:]
    assert warehouse.rows("fact_purchase", "event_id") == {}
    assert warehouse.rows("mart_daily_sales", "sales_date") == {}
    assert date.today() - timedelta(days=1) in warehouse.rows("dim_date", "date_day")

    warehouse.buy("a", "c1", "1997-01-01 23:59:59", 1, 11.77, enrichment='{{"repurchase":{{"score":0.25}}}}')
    warehouse.buy("b", "c1", "1997-03-01 10:00:00", 2, 0.1)
    warehouse.buy("c", "c2", "1997-01-01 00:00:00", 3, 0.2)
    warehouse.buy("d", "c1", "2026-11-20 10:00:00", 1, 29.99, source="website")
    warehouse.sql(
        "INSERT INTO {silver}.identify VALUES ('i1', 'website', 'c1', TIMESTAMP '2026-11-20 10:00:00 UTC', 'a@b.c', 'free', NULL)"
    )
    warehouse.sql("INSERT INTO {silver}.identify VALUES ('i2', 'website', 'c1', TIMESTAMP '2026-11-20 11:00:00 UTC', NULL, 'paid', NULL)")
    warehouse.sql("INSERT INTO {silver}.identify VALUES ('i3', 'website', 'c9', TIMESTAMP '2026-11-20 11:00:00 UTC', NULL, NULL, NULL)")
    built = warehouse.build()
    assert built.returncode == 0, built.stdout[-3000:]

    facts = warehouse.rows("fact_purchase", "event_id")
    assert {id: row["amount_usd"] for id, row in facts.items()} == {
        "a": Decimal("11.77"),
        "b": Decimal("0.10"),
        "c": Decimal("0.20"),
        "d": Decimal("29.99"),
    }
    assert (facts["a"]["purchased_on"], facts["a"]["repurchase_score"], facts["b"]["repurchase_score"]) == (date(1997, 1, 1), 0.25, None)
    customers = warehouse.rows("dim_customer", "customer_key")
    assert sorted((row["source"], row["customer_id"], row["plan"], row["cohort_month"]) for row in customers.values()) == [
        ("cdnow", "c1", None, date(1997, 1, 1)),
        ("cdnow", "c2", None, date(1997, 1, 1)),
        ("website", "c1", "paid", date(2026, 11, 1)),
        ("website", "c9", None, None),
    ]
    days = warehouse.rows("mart_daily_sales", "sales_date")
    first = days[date(1997, 1, 1)]
    assert [first[name] for name in ("purchases", "customers", "new_customers", "quantity", "amount_usd", "mean_amount_usd")] == [
        *(2, 2, 2, 4),
        *(Decimal("11.97"), Decimal("5.99")),
    ]
    assert days[date(1997, 3, 1)]["new_customers"] == 0
    features = {(row["source"], row["customer_id"]): row for row in warehouse.rows("customer_features", "monetary_total_usd").values()}
    c1 = features["cdnow", "c1"]
    assert (c1["frequency"], c1["quantity_total"], c1["monetary_total_usd"], c1["monetary_mean_usd"]) == (2, 3, Decimal("11.87"), 5.935)
    assert len(features) == 3
    calendar = warehouse.rows("dim_date", "date_day")
    assert calendar[date(1997, 1, 4)]["is_weekend"] is True
    assert (calendar[date(2000, 2, 29)]["day_name"], calendar[date(2000, 2, 29)]["day_of_week"]) == ("Tuesday", 2)

    before = warehouse.snapshots()
    built = warehouse.build()
    assert built.returncode == 0, built.stdout[-3000:]
    assert warehouse.snapshots() == before

    # A late purchase moves the first one of its customer, and nothing of the others.
    warehouse.buy("late", "c1", "1996-12-31 00:00:00", 1, 5, loaded="2026-11-21 13:00:00")
    built = warehouse.build()
    assert built.returncode == 0, built.stdout[-3000:]
    days = warehouse.rows("mart_daily_sales", "sales_date")
    assert (days[date(1996, 12, 31)]["new_customers"], days[date(1997, 1, 1)]["new_customers"]) == (1, 1)
    assert date(1996, 12, 1) in warehouse.rows("dim_date", "date_day")
    c1 = {(row["source"], row["customer_id"]): row for row in warehouse.rows("customer_features", "monetary_total_usd").values()}[
        "cdnow", "c1"
    ]
    assert (c1["frequency"], c1["monetary_total_usd"], c1["first_purchase_at"].date()) == (3, Decimal("16.87"), date(1996, 12, 31))

    # What should not be is said: here a purchase of nobody.
    columns = "'nobody', source, NULL, time, NULL, NULL, 1, 1, enrichment, time, time"
    warehouse.sql(f"INSERT INTO {{silver}}.purchase SELECT {columns} FROM {{silver}}.purchase LIMIT 1")
    built = warehouse.build()
    assert built.returncode == 1
    assert "complete_fact_purchase" in built.stdout
