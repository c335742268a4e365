"""Silver to gold with the real dbt and Trino, in schemas of its own in the lake."""

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dags.upkeep.main import cursor_of
from dags.upkeep.tables import statement
from tests.integration.warehouse import Warehouse, warehouse

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]  # several builds
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
TABLES = (
    *("customer_features", "customer_features_by_day", "dim_customer", "dim_product", "fact_activity", "fact_page_view"),
    *("fact_prediction", "fact_purchase", "fact_session", "mart_daily_sales", "mart_funnel", "mart_model_weeks", "mart_retention"),
    *("mart_variants", "prediction_truth"),
)  # and dim_date


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Warehouse]:
    with warehouse(tmp_path) as made:
        yield made


def event(id: str, subject: str | None, time: str, source: str = "cdnow", **data: Any) -> dict[str, Any]:
    """A row of silver."""
    at = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return {"id": id, "source": source, "subject": subject, "time": at, "received_at": NOW, "loaded_at": NOW, "enrichment": "{}", **data}


def test_gold_holds_what_silver_holds_and_a_second_build_changes_nothing(lake: Warehouse) -> None:
    lake.build()
    counts = {name: lake.sql(f"SELECT count(*) FROM {{gold}}.{name}")[0][0] for name in lake.snapshots()}
    assert counts.pop("dim_date") > 0
    assert counts == dict.fromkeys(TABLES, 0)
    assert date.today() - timedelta(days=1) in lake.rows("dim_date", "date_day")

    lines = [{"product_id": "cd-1", "name": "First", "quantity": 1, "price_usd": 29.99}]
    lake.silver.append(
        "purchase",
        [
            event("a", "c1", "1997-01-01 23:59:59", quantity=1, amount_usd=11.77, enrichment='{"repurchase":{"score":0.25}}'),
            event("b", "c1", "1997-03-01 10:00:00", quantity=2, amount_usd=0.1),
            event("c", "c2", "1997-01-01 00:00:00", quantity=3, amount_usd=0.2),
            event("d", "c1", "2026-11-20 10:20:00", "website", quantity=1, amount_usd=29.99, session_id="s1", products=lines),
        ],
    )
    lake.silver.append(
        "identify",
        [
            event("i1", "c1", "2026-11-20 10:00:00", "website", email="a@b.c", plan="free"),
            event("i2", "c1", "2026-11-20 12:00:00", "website", plan="paid"),
            event("i3", "c1", "2026-11-20 13:00:00", "website", plan="paid"),
            event("i4", "c9", "2026-11-20 11:00:00", "website"),
        ],
    )
    lake.silver.append("group", [event("g1", "c1", "2026-11-20 14:00:00", "website", group_id="acme")])
    lake.silver.append(
        "page_view",
        [
            event("v1", "anonymous", "2026-11-20 10:00:00", "website", url="https://x/", path="/", referrer="https://y/", session_id="s1"),
            event("v2", "c1", "2026-11-20 11:00:00", "website", url="https://x/b", path="/b", session_id="s1"),
            event("v3", None, "2026-11-20 11:00:00", "website", url="https://x/b"),
        ],
    )
    lake.silver.append(
        "add_to_cart",
        [
            event("k1", "anonymous", "2026-11-20 10:10:00", "website", session_id="s1", product_id="cd-1", quantity=1, price_usd=27.5),
            event("k2", "c2", "2026-11-20 10:10:00", "website", product_id="cd-2", name="Second", quantity=1, price_usd=5.0),
        ],
    )
    lake.build()

    facts = lake.rows("fact_purchase", "event_id")
    assert {id: row["amount_usd"] for id, row in facts.items()} == {
        "a": Decimal("11.77"),
        "b": Decimal("0.10"),
        "c": Decimal("0.20"),
        "d": Decimal("29.99"),
    }
    assert (facts["a"]["purchased_on"], facts["a"]["repurchase_score"], facts["b"]["repurchase_score"]) == (date(1997, 1, 1), 0.25, None)
    days = lake.rows("mart_daily_sales", "sales_date")
    first = days[date(1997, 1, 1)]
    assert [first[name] for name in ("purchases", "customers", "new_customers", "quantity", "amount_usd", "mean_amount_usd")] == [
        *(2, 2, 2, 4),
        *(Decimal("11.97"), Decimal("5.99")),
    ]
    assert days[date(1997, 3, 1)]["new_customers"] == 0
    features = lake.rows("customer_features", "source", "customer_id")
    c1 = features["cdnow", "c1"]
    assert (c1["frequency"], c1["quantity_total"], c1["monetary_total_usd"], c1["monetary_mean_usd"]) == (2, 3, Decimal("11.87"), 5.935)
    assert len(features) == 3
    calendar = lake.rows("dim_date", "date_day")
    assert calendar[date(1997, 1, 4)]["is_weekend"] is True
    assert (calendar[date(2000, 2, 29)]["day_name"], calendar[date(2000, 2, 29)]["day_of_week"]) == ("Tuesday", 2)

    assert versions(lake) == {
        ("cdnow", "c1"): [("1997-01-01 23:59", None, None, None)],
        ("cdnow", "c2"): [("1997-01-01 00:00", None, None, None)],
        ("website", "c1"): [
            ("2026-11-20 10:00", "2026-11-20 12:00", "free", None),
            ("2026-11-20 12:00", "2026-11-20 14:00", "paid", None),
            ("2026-11-20 14:00", None, "paid", "acme"),
        ],
        ("website", "c9"): [("2026-11-20 11:00", None, None, None)],
    }
    products = lake.rows("dim_product", "product_id")
    assert [(row["name"], row["price_usd"]) for row in (products["cd-1"], products["cd-2"])] == [
        ("First", Decimal("29.99")),
        ("Second", Decimal("5.00")),
    ]
    assert {id: row["path"] for id, row in lake.rows("fact_page_view", "event_id").items()} == {"v1": "/", "v2": "/b", "v3": None}
    # The visit s1 goes on through the login, and is two sessions: 40 minutes are between the purchase and the next page.
    assert sessions(lake) == {
        ("s1", "10:00", "10:20", "c1", 3, 1, 1, Decimal("29.99"), "/"),
        ("s1", "11:00", "11:00", "c1", 1, 1, 0, Decimal(0), "/b"),
        (None, "10:10", "10:10", "c2", 1, 0, 0, Decimal(0), None),
    }
    assert funnel(lake) == {("website", date(2026, 11, 20)): [2, 1, 1]}

    before = lake.snapshots()
    lake.build()
    assert lake.snapshots() == before

    # What comes late is read alone, and changes the rows that it belongs to: a first purchase, a version in the middle, a page that joins
    # two sessions.
    lake.silver.append("purchase", [event("late", "c1", "1996-12-31 00:00:00", quantity=1, amount_usd=5.0)])
    lake.silver.append("identify", [event("i5", "c1", "2026-11-20 12:30:00", "website", plan="free")])
    lake.silver.append("page_view", [event("v4", "c1", "2026-11-20 10:40:00", "website", url="https://x/c", path="/c", session_id="s1")])
    lake.build()
    for model in ("fact_purchase", "fact_session", "mart_daily_sales"):
        assert "table_changes(" in lake.compiled(model), f"{model} read all"
    days = lake.rows("mart_daily_sales", "sales_date")
    assert [days[day]["new_customers"] for day in (date(1996, 12, 31), date(1997, 1, 1))] == [1, 1]
    assert date(1996, 12, 1) in lake.rows("dim_date", "date_day")
    c1 = lake.rows("customer_features", "source", "customer_id")["cdnow", "c1"]
    assert (c1["frequency"], c1["monetary_total_usd"], c1["first_purchase_at"].date()) == (3, Decimal("16.87"), date(1996, 12, 31))
    cohorts = lake.rows("mart_retention", "source", "cohort_month", "month_number")
    assert {key[1:]: row["customers"] for key, row in cohorts.items() if key[0] == "cdnow"} == {
        **{(date(1996, 12, 1), month): number for month, number in enumerate([1, 1, 0, 1])},
        **{(date(1997, 1, 1), month): number for month, number in enumerate([1, 0, 0])},
    }
    assert versions(lake)["cdnow", "c1"] == [("1996-12-31 00:00", None, None, None)]
    assert versions(lake)["website", "c1"] == [
        ("2026-11-20 10:00", "2026-11-20 12:00", "free", None),
        ("2026-11-20 12:00", "2026-11-20 12:30", "paid", None),
        ("2026-11-20 12:30", "2026-11-20 13:00", "free", None),
        ("2026-11-20 13:00", "2026-11-20 14:00", "paid", None),
        ("2026-11-20 14:00", None, "paid", "acme"),
    ]
    assert sessions(lake) == {
        ("s1", "10:00", "11:00", "c1", 5, 3, 1, Decimal("29.99"), "/"),
        (None, "10:10", "10:10", "c2", 1, 0, 0, Decimal(0), None),
    }
    assert funnel(lake) == {("website", date(2026, 11, 20)): [1, 1, 1]}

    # Upkeep forgot the snapshot that was read up to: what came after a compaction of it is read alone, else everything once more.
    lake.sql("ALTER TABLE {silver}.page_view EXECUTE optimize")
    forget(lake, "page_view")
    lake.silver.append("page_view", [event("v5", "c2", "2026-11-20 10:20:00", "website", url="https://x/d", path="/d")])
    lake.silver.append("add_to_cart", [event("k3", "c2", "2026-11-20 10:30:00", "website", product_id="cd-3", quantity=1, price_usd=7.5)])
    forget(lake, "add_to_cart")
    lake.build()
    assert "table_changes(" in lake.compiled("fact_page_view")
    assert "table_changes(" not in lake.compiled("dim_product")
    assert {*lake.rows("fact_page_view", "event_id")} == {"v1", "v2", "v3", "v4", "v5"}
    assert {id: row["price_usd"] for id, row in lake.rows("dim_product", "product_id").items()} == {
        "cd-1": Decimal("29.99"),
        "cd-2": Decimal("5.00"),
        "cd-3": Decimal("7.50"),
    }
    assert sessions(lake) == {
        ("s1", "10:00", "11:00", "c1", 5, 3, 1, Decimal("29.99"), "/"),
        (None, "10:10", "10:30", "c2", 3, 1, 0, Decimal(0), "/d"),
    }

    # What should not be is said: here a purchase of nobody.
    lake.silver.append("purchase", [event("nobody", None, "2026-11-20 10:00:00", quantity=1, amount_usd=1.0)])
    built = lake.dbt("build")
    assert built.returncode == 1
    assert "one_row_for_each_fact_purchase" in built.stdout


def forget(lake: Warehouse, table: str) -> None:
    """Leave of a table's history its present alone."""
    cursor_of(os.environ).execute(statement("expire", f"lake.{lake.silver_schema}.{table}", 0)).fetchall()
    assert lake.sql(f'SELECT count(*) FROM {{silver}}."{table}$snapshots"') == [[1]]


def versions(lake: Warehouse) -> dict[tuple[str, str], list[tuple[str, str | None, str | None, str | None]]]:
    """The versions of each customer in dim_customer: from when, until when, plan and group."""

    def minute(time: datetime | None) -> str | None:
        return None if time is None else f"{time:%Y-%m-%d %H:%M}"

    found: dict[tuple[str, str], list[Any]] = {}
    for (_, number), row in sorted(lake.rows("dim_customer", "customer_key", "version").items()):
        of_customer = found.setdefault((row["source"], row["customer_id"]), [])
        of_customer.append((minute(row["valid_from"]), minute(row["valid_to"]), row["plan"], row["group_id"]))
        assert number == len(of_customer)
    return found


def sessions(lake: Warehouse) -> set[tuple[Any, ...]]:
    """The sessions of the website: visit, begin, end, customer, numbers of events, views and purchases, dollars, first page."""
    names = ("customer_id", "events", "views", "purchases", "amount_usd", "landing_path")
    return {
        (row["session_id"], f"{row['started_at']:%H:%M}", f"{row['ended_at']:%H:%M}", *(row[name] for name in names))
        for row in lake.rows("fact_session", "session_key").values()
        if row["source"] == "website"
    }


def funnel(lake: Warehouse) -> dict[tuple[str, date], list[int]]:
    """Numbers of sessions at each step, by source and day."""
    found: dict[tuple[str, date], list[int]] = {}
    for (source, day, _), row in sorted(lake.rows("mart_funnel", "source", "funnel_date", "step_number").items()):
        found.setdefault((source, day), []).append(row["sessions"])
    return found
