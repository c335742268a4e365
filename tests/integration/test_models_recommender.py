"""The recommender by the real Spark, on a small shop: equal to a plain loop, without a leak, and better than what is popular."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml.keeping import Run
from producers.simulate.history import write
from tests.integration import lakes
from tests.integration.model_life import Life, life_in

# A fresh machine fetches the environments first.
pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]
BEGINS, WEEK = datetime(2026, 1, 5, tzinfo=UTC), timedelta(days=7)
WEEKS, CANDIDATES = 8, 8


@pytest.fixture(scope="module")
def life(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder = tmp_path_factory.mktemp("recommender")
    write(folder / "shop.jsonl", 7, 6_000, BEGINS, 98)
    write(folder / "another.jsonl", 8, 1_000, BEGINS, 98)
    with (folder / "shop.jsonl").open("a") as file:  # customers and products of the same ids, and others
        file.write((folder / "another.jsonl").read_text().replace('"source":"simulate"', '"source":"another"'))
    with life_in(folder, ML_SHOP_FILE=str(folder / "shop.jsonl"), ML_SPARK_MEMORY="1g") as made:
        yield made


@pytest.fixture(scope="module")
def run(life: Life) -> Run:
    made = Run(life.folder / "first")
    life.done("prepare", "--scenario", str(life.scenario("recommender", "recommender")), "--run", str(made.folder), "--trials", "2")
    return made


@pytest.fixture(scope="module")
def trained(life: Life, run: Run) -> Run:
    life.done("train", "--run", str(run.folder), "--unit", "recommender")
    return run


@dataclass(frozen=True)
class Deed:
    source: str
    customer: str
    product: str
    what: str
    at: datetime
    price: float | None


def deeds(file: Path) -> list[Deed]:
    """What customers did with products, each known when both the deed and the name of the customer were."""
    events = [json.loads(line) for line in file.read_text().splitlines()]
    for event in events:
        event["time"] = datetime.fromisoformat(event["time"])
    named = {(event["source"], event["data"]["previous_id"]): event for event in events if event["type"] == "alias"}
    found = []
    for event in events:
        data, source, name = event["data"], event["source"], named.get((event["source"], event["subject"]))
        if event["type"] == "purchase":
            found += [Deed(source, event["subject"], x["product_id"], "bought", event["time"], x["price_usd"]) for x in data["products"]]
        elif name and event["type"] == "page_view" and data["path"].startswith("/p/"):
            found.append(Deed(source, name["subject"], data["path"].removeprefix("/p/"), "viewed", max(event["time"], name["time"]), None))
        elif name and event["type"] == "add_to_cart":
            found.append(Deed(source, name["subject"], data["product_id"], "carted", max(event["time"], name["time"]), data["price_usd"]))
    return found


def test_candidates_features_and_labels_are_what_a_plain_loop_says(life: Life, run: Run) -> None:
    known = deeds(life.folder / "shop.jsonl")
    rows = pd.read_parquet(run.prepared)
    rows["as_of"] = pd.to_datetime(rows["as_of"], utc=True)
    assert set(rows["as_of"]) == {pd.Timestamp(BEGINS + number * WEEK) for number in range(1, 14)}
    for as_of in (BEGINS + 5 * WEEK, BEGINS + 11 * WEEK):
        mine = rows[rows["as_of"] == pd.Timestamp(as_of)]
        expected = {
            (source, *key): row
            for source in ("simulate", "another")
            for key, row in _expected([deed for deed in known if deed.source == source], as_of).items()
        }
        assert {*zip(mine["source"], mine["customer_id"], mine["product"], strict=True)} == set(expected)
        assert len(mine) == len(expected) > 1_000
        for row in mine.to_dict("records"):
            key = row["source"], row["customer_id"], row["product"]
            for name, value in expected[key].items():
                assert row[name] == pytest.approx(value, nan_ok=True, abs=1e-6), (key, as_of, name)


def _expected(known: list[Deed], as_of: datetime) -> dict[tuple[str, str], dict[str, Any]]:
    of: dict[str, dict[str, list[Deed]]] = defaultdict(lambda: defaultdict(list))
    for deed in known:
        if as_of - WEEKS * WEEK <= deed.at < as_of:
            of[deed.customer][deed.product].append(deed)
    sold = [deed for deed in known if deed.what == "bought" and as_of - 4 * WEEK <= deed.at < as_of]
    popular, fresh = Counter(d.product for d in sold), Counter(d.product for d in sold if d.at >= as_of - WEEK)
    best = [product for product, _ in sorted(popular.items(), key=lambda each: (-each[1], each[0]))[:CANDIDATES]]
    liked = {
        customer: {product for product, done in products.items() if {"carted", "bought"} & {deed.what for deed in done}}
        for customer, products in of.items()
    }
    each = Counter(product for products in liked.values() for product in products)
    both = Counter((one, other) for products in liked.values() for one in products for other in products if one != other)
    after = defaultdict(set)
    for deed in known:
        if deed.what == "bought" and as_of <= deed.at < as_of + WEEK:
            after[deed.customer].add(deed.product)
    prices = {deed.product: deed.price or 0.0 for deed in sorted(sold, key=lambda deed: deed.at)}
    found = {}
    for customer, products in of.items():
        affinity: dict[str, float] = defaultdict(float)
        for (one, other), count in both.items():
            if other in products:
                affinity[one] += count / each[other]
        fitting = sorted(affinity, key=lambda product: (-round(affinity[product], 9), product))[:CANDIDATES]
        bought = sum(deed.what == "bought" for done in products.values() for deed in done)
        usual = _mean(_mean(deed.price for deed in done if deed.price is not None) for done in products.values())
        for product in {*best, *products, *fitting}:
            done = products.get(product, [])
            found[customer, product] = {
                **{what: sum(deed.what == what for deed in done) for what in ("viewed", "carted", "bought")},
                "popularity": popular[product],
                "popularity_1w": fresh[product],
                "trend": fresh[product] * 4 / max(popular[product], 1),
                "touched_days": _days(as_of, done),
                "affinity": affinity[product],
                "affinity_share": affinity[product] / sum(affinity.values()) if affinity[product] else 0,
                "purchases": bought,
                "known_products": len(products),
                "recency_days": _days(as_of, [deed for done in products.values() for deed in done]),
                "price": prices.get(product, float("nan")),
                "price_to_usual": prices.get(product, float("nan")) / usual,
                "label": float(product in after[customer]),
                "wanted": len(after[customer]),
            }
    return found


def _mean(values: Iterable[float | None]) -> float:
    there = [value for value in values if value is not None and not math.isnan(value)]
    return sum(there) / len(there) if there else float("nan")


def _days(as_of: datetime, done: list[Deed]) -> float:
    return (as_of - max(deed.at for deed in done).replace(microsecond=0)) / timedelta(days=1) if done else float("nan")


def test_no_feature_knows_the_future(run: Run) -> None:
    checked = json.loads((run.folder / "prepare.json").read_text())["leak_check"]
    assert (checked["moments"], checked["leaks"]) == (5, [])
    assert checked["rows"] >= 800


def test_a_planted_leak_is_caught(life: Life) -> None:
    leaky = life.scenario("leaky", "recommender", features="ml.examples.planted:WeekOfSales")
    done = life.step("prepare", "--scenario", str(leaky), "--run", str(life.folder / "leaky"))
    assert done.returncode == 1
    assert "popularity of source " in done.stderr.splitlines()[-1]
    assert "without the future" in done.stderr.splitlines()[-1]


def test_lists_are_in_a_better_order_than_by_popularity(trained: Run) -> None:
    metrics = json.loads((trained.folder / "units/recommender/metrics.json").read_text())
    ours, popular = (metrics[who]["ranking"] for who in ("model", "baseline"))
    assert ours["lists"] == popular["lists"] > 50
    assert ours["hit_rate"] > popular["hit_rate"]
    assert ours["mrr"] > popular["mrr"]


def test_each_candidate_of_the_week_that_begins_is_scored_once(life: Life, trained: Run) -> None:
    judged = life.done("judge", "--run", str(trained.folder), "--unit", "recommender")
    assert judged["passed"], judged["reasons"]
    life.done("register", "--run", str(trained.folder), "--unit", "recommender")
    assert life.headrace("promote", "recommender", "1", "--why", "a better order").returncode == 0
    of = str(life.folder / "recommender.yaml")
    scored, again = (life.done("score", "--scenario", of, "--run", str(life.folder / name)) for name in ("score1", "score2"))
    rows = lakes.catalog().load_table(f"{life.namespace}.scores").scan().to_pandas()
    assert (scored["rows"], again["rows"]) == (len(rows), 0)
    as_of = BEGINS + 14 * WEEK
    candidates = _expected([deed for deed in deeds(life.folder / "shop.jsonl") if deed.source == "simulate"], as_of)
    mine = rows[rows["source"] == "simulate"]
    assert {*zip(mine["customer_id"], mine["product"], strict=True)} == set(candidates)
    assert len(mine) == len(candidates) > 1_000
    assert set(rows["as_of"]) == {pd.Timestamp(as_of)}
    assert mine["score"].between(0, 1).all()
    assert mine["score"].nunique() > 100
