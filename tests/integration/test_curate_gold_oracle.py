"""Gold against independent computations: pandas on the original CDNOW file, and a plain sessioniser in Python.

The rows come in two parts and in any order, so that the second build has late events of all kinds to work in.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest

from producers.cdnow.purchases import read_purchases
from tests.integration.warehouse import ROOT, Warehouse, warehouse

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]
AS_OF = date(1998, 1, 31)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SILENCE = timedelta(minutes=30)
COUNTED = {"views": ("page_view", "screen_view"), "add_to_carts": ("add_to_cart",), "logins": ("login",), "purchases": ("purchase",)}
REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "page_view": {"url": "https://shop.example/"},
    "screen_view": {"name": "home"},
    "button_click": {"button_id": "b"},
    "add_to_cart": {"product_id": "p", "quantity": 1, "price_usd": 1.0},
    "login": {"method": "password"},
    "purchase": {"quantity": 1, "amount_usd": 12.34},
}


def cdnow_file() -> Path:
    return ROOT / os.environ["ENRICHMENT_API_DATA_FILE"]


def cdnow_rows() -> list[dict[str, Any]]:
    """All purchases of the file as rows of silver."""
    return [
        {
            "id": each.id,
            "source": "cdnow",
            "type": "purchase",
            "subject": each.customer_id,
            "time": datetime.combine(each.day, datetime.min.time(), UTC),
            "received_at": NOW,
            "loaded_at": NOW,
            **each.data,
        }
        for each in read_purchases(cdnow_file())
    ]


def visits(random: Random, visitors: int) -> Iterator[dict[str, Any]]:
    """Rows of silver: what visitors do, with pauses around 30 minutes; half are known by their visit, some change their name on the way."""
    number = 0
    for visitor in range(visitors):
        time = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=random.randrange(40 * 86400))
        visit = f"visit-{visitor}" if random.random() < 0.5 else None
        subject: str | None = f"anonymous-{visitor}"
        for _ in range(random.choice((1, 2, 5, 12, 25))):
            number += 1
            type = random.choice(list(REQUIRED))
            if visit and random.random() < 0.2:
                subject = random.choice((f"customer-{visitor}", None)) if type != "purchase" else f"customer-{visitor}"
            yield {
                "id": f"e-{number}",
                "source": random.choice(("shop", "app")) if number % 97 == 0 else "shop",
                "type": type,
                "subject": f"customer-{visitor}" if type == "purchase" and subject is None else subject,
                "time": time,
                "session_id": visit,
                "received_at": NOW,
                "loaded_at": NOW,
                **REQUIRED[type],
            }
            pause = random.choice((0, 20, 300, 1799, 1800, 1801, 3000, 90000))
            time += timedelta(seconds=pause, microseconds=-1 if pause == 1800 and random.random() < 0.5 else 0)


def sessions_of(events: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, datetime], dict[str, Any]]:
    """By source, visitor and begin: what each session must hold."""
    by_visitor: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for event in events:
        if event.get("session_id") or event["subject"]:
            who = f"visit {event['session_id']}" if event.get("session_id") else f"customer {event['subject']}"
            by_visitor.setdefault((event["source"], who), []).append(event)
    found = {}
    for (source, who), of_visitor in by_visitor.items():
        of_visitor.sort(key=lambda each: (each["time"], each["id"]))
        starts = [n for n, event in enumerate(of_visitor) if not n or event["time"] - of_visitor[n - 1]["time"] >= SILENCE]
        for start, end in zip(starts, [*starts[1:], len(of_visitor)], strict=True):
            found[source, who, of_visitor[start]["time"]] = summary(of_visitor[start:end])
    return found


def summary(session: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What fact_session says of these events."""
    bought = [Decimal(str(each["amount_usd"])) for each in session if each["type"] == "purchase"]
    return {
        "ended_at": session[-1]["time"],
        "started_on": session[0]["time"].date(),
        "duration_seconds": round((session[-1]["time"] - session[0]["time"]).total_seconds()),
        "customer_id": next((each["subject"] for each in reversed(session) if each["subject"]), None),
        "events": len(session),
        **{name: sum(each["type"] in types for each in session) for name, types in COUNTED.items()},
        "amount_usd": sum(bought, Decimal(0)),
    }


def sessions_in(lake: Warehouse) -> dict[tuple[str, str, datetime], dict[str, Any]]:
    """The same of fact_session, but for that of CDNOW."""
    found = {}
    for row in lake.rows("fact_session", "session_key").values():
        if row["source"] != "cdnow":
            who = f"visit {row['session_id']}" if row["session_id"] else f"customer {row['customer_id']}"
            found[row["source"], who, row["started_at"]] = {name: row[name] for name in summary_names()}
    return found


def summary_names() -> list[str]:
    return ["ended_at", "started_on", "duration_seconds", "customer_id", "events", *COUNTED, "amount_usd"]


def retention_by_pandas() -> dict[tuple[date, date], tuple[int, int, int, Decimal]]:
    """By cohort and month: its size, who bought, purchases and dollars, from the original file."""
    data = cdnow_by_pandas()
    data["month"] = data["day"].dt.to_period("M")
    data["cohort"] = data.groupby("customer")["month"].transform("min")
    sizes = data.groupby("cohort")["customer"].nunique()
    cells = data.groupby(["cohort", "month"]).agg(customers=("customer", "nunique"), purchases=("cents", "size"), cents=("cents", "sum"))
    months = pd.period_range(data["month"].min(), data["month"].max(), freq="M")
    found = {}
    for cohort in sizes.index:
        for month in months[months >= cohort]:
            customers, purchases, cents = cells.loc[(cohort, month)] if (cohort, month) in cells.index else (0, 0, 0)
            key = (cohort.to_timestamp().date(), month.to_timestamp().date())
            found[key] = (int(sizes[cohort]), int(customers), int(purchases), Decimal(int(cents)).scaleb(-2))
    return found


def features_by_pandas(as_of: date) -> dict[str, tuple[int, int, Decimal]]:
    """Recency in days, frequency and dollars of each customer who had bought by the end of `as_of`, from the original file."""
    data = cdnow_by_pandas()
    data = data[data["day"] <= pd.Timestamp(as_of)]
    by_customer = data.groupby("customer").agg(last=("day", "max"), frequency=("day", "size"), cents=("cents", "sum"))
    recency = (pd.Timestamp(as_of) - by_customer["last"]).dt.days
    return {
        str(customer): (int(recency[customer]), int(row.frequency), Decimal(int(row.cents)).scaleb(-2))
        for customer, row in by_customer.iterrows()
    }


def cdnow_by_pandas() -> pd.DataFrame:
    """The file as it is, dollars as cents."""
    names = ["customer", "day", "quantity", "dollars"]
    data = pd.read_csv(cdnow_file(), sep=r"\s+", skiprows=1, names=names, dtype={"customer": str, "day": str})
    data["day"] = pd.to_datetime(data["day"], format="%Y%m%d")
    data["cents"] = (data["dollars"] * 100).round().astype("int64")
    return data


def features_as_of(lake: Warehouse, day: date) -> dict[str, tuple[int, int, Decimal]]:
    """The same from gold."""
    rows = lake.sql(
        f"""SELECT customer_id, date_diff('day', purchased_on, DATE '{day}'), frequency, monetary_total_usd
        FROM {{gold}}.customer_features_by_day
        WHERE source = 'cdnow' AND purchased_on <= DATE '{day}' AND (next_purchase_on IS NULL OR next_purchase_on > DATE '{day}')"""
    )
    found = {row[0]: (row[1], row[2], row[3]) for row in rows}
    assert len(found) == len(rows)
    return found


def test_gold_is_what_pandas_and_a_plain_sessioniser_say(tmp_path: Path) -> None:
    random = Random(7)
    rows = [*cdnow_rows(), *visits(random, 400)]
    random.shuffle(rows)
    late = len(rows) // 4
    with warehouse(tmp_path) as lake:
        for parts, command in (([rows[late:]], "run"), ([rows[: late // 2], rows[late // 2 : late]], "build")):
            for number, part in enumerate(parts):
                if number:  # a compaction between two runs of curation
                    for table in ("silver}.purchase", "silver}.page_view", "gold}.fact_activity"):
                        lake.sql(f"ALTER TABLE {{{table} EXECUTE optimize")
                for type in REQUIRED:
                    lake.silver.append(type, [row for row in part if row["type"] == type])
            built = lake.dbt(command)
            assert built.returncode == 0, built.stdout[-5000:]

        cohorts = lake.rows("mart_retention", "source", "cohort_month", "activity_month")
        measures = ("cohort_size", "customers", "purchases", "amount_usd")
        expected_cohorts = retention_by_pandas()
        assert {key[1:]: tuple(row[name] for name in measures) for key, row in cohorts.items() if key[0] == "cdnow"} == expected_cohorts
        assert {cohort: expected_cohorts[cohort, cohort][0] for cohort, _ in expected_cohorts} == {
            date(1997, 1, 1): 7846,
            date(1997, 2, 1): 8476,
            date(1997, 3, 1): 7248,
        }
        for day in (AS_OF, date(1998, 6, 30)):
            assert features_as_of(lake, day) == features_by_pandas(day)
        now = lake.sql("SELECT customer_id, frequency, monetary_total_usd FROM {gold}.customer_features WHERE source = 'cdnow'")
        assert {row[0]: (row[1], row[2]) for row in now} == {
            customer: each[1:] for customer, each in features_by_pandas(date(1998, 6, 30)).items()
        }

        visited = [row for row in rows if row["source"] != "cdnow"]
        expected = sessions_of(visited)
        assert sessions_in(lake) == expected
        funnel: dict[tuple[str, date], list[int]] = {}
        for (source, _, _), session in expected.items():
            if session["views"]:
                steps = (1, session["add_to_carts"], session["add_to_carts"] and session["purchases"])
                counts = funnel.setdefault((source, session["started_on"]), [0, 0, 0])
                funnel[source, session["started_on"]] = [count + bool(step) for count, step in zip(counts, steps, strict=True)]
        got: dict[tuple[str, date], list[int]] = {}
        for (source, day, _), row in sorted(lake.rows("mart_funnel", "source", "funnel_date", "step_number").items()):
            got.setdefault((source, day), []).append(row["sessions"])
        assert got == funnel
