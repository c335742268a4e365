"""Predictions, what came true of them, and the comparison of variants: the real dbt and Trino against plain Python."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from tests.integration.warehouse import Warehouse, warehouse

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]  # several builds
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HORIZON = timedelta(days=90)
Z = 1.959963984540054
ONLY = ("run", "--select", "+mart_variants", "+mart_model_weeks")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Warehouse]:
    with warehouse(tmp_path) as made:
        yield made


def scored(score: float | None, version: str = "v1", variant: str | None = "champion", **others: Any) -> str:
    """An enrichment, as the enricher writes it."""
    said = {"model": "repurchase", "version": version, "score": score, "features": "new", "variant": variant}
    if score is None:
        return json.dumps({"repurchase": None, "enrichment_skipped": {"repurchase": "late"}, **others})
    return json.dumps({"repurchase": {name: value for name, value in said.items() if value is not None}, **others})


def purchase(id: str, subject: str, time: str, enrichment: str | None = None, source: str = "cdnow") -> dict[str, Any]:
    """A row of silver.purchase; `time` is of 1997, unless it names another year."""
    at = datetime.fromisoformat(time if time[4:5] == "-" else f"1997-{time}").replace(tzinfo=UTC)
    row = {"id": id, "source": source, "subject": subject, "time": at, "received_at": NOW, "loaded_at": NOW}
    return {**row, "quantity": 2, "amount_usd": 12.5, "enrichment": enrichment}


def feedback(id: str, event_id: str, truth: float, source: str = "cdnow", **more: Any) -> dict[str, Any]:
    """A row of silver.feedback."""
    said = {"event_id": event_id, "model": "repurchase", "model_version": "v1", "truth": truth, **more}
    return {"id": id, "source": source, "time": NOW, "received_at": NOW, "loaded_at": NOW, **said}


def run(lake: Warehouse) -> None:
    """Build what a comparison of variants is made of."""
    built = lake.dbt(*ONLY)
    assert built.returncode == 0, built.stdout[-5000:]


def truths(lake: Warehouse, *ids: str) -> dict[str, tuple[float | None, str | None, str | None, bool]]:
    """Of the predictions of `repurchase` for these events: truth, who says so, since which day (with its time, where it is not midnight)
    it is known, and whether it is settled."""

    def moment(at: datetime | None) -> str | None:
        return f"{at:%m-%d %H:%M:%S}".removesuffix(" 00:00:00") if at else None

    rows = lake.rows("prediction_truth", "event_id", "model")
    assert rows.keys() == lake.rows("fact_prediction", "event_id", "model").keys()
    names = ids or [id for id, model in rows if model == "repurchase"]
    of = {id: rows[id, "repurchase"] for id in names}
    return {id: (row["truth"], row["truth_from"], moment(row["truth_known_at"]), row["settled"]) for id, row in of.items()}


def test_truth_follows_what_comes_and_what_comes_late(lake: Warehouse) -> None:
    other = {"model": "upsell", "version": "u1", "score": 0.5}
    lake.silver.append(
        "purchase",
        [
            purchase("a", "ann", "01-01", scored(0.8)),
            purchase("b", "bob", "01-01", scored(0.2, variant=None, upsell=other)),
            purchase("b2", "bob", "01-01", scored(0.1)),  # at the same moment: neither comes after the other
            purchase("c", "cat", "01-01", scored(0.4, "v2", "challenger")),
            purchase("d", "dan", "01-01", scored(0.3)),
            purchase("skipped", "eve", "01-01", scored(None)),
            purchase("without", "eve", "01-02"),
            purchase("same name", "ann", "02-01", source="other"),
            purchase("young", "fay", "2026-11-01", scored(0.6), "shop"),
            purchase("clock", "gus", "2027-09-01", source="shop"),  # ahead: it proves nothing beyond its receipt
        ],
    )
    lake.build()
    facts = lake.rows("fact_prediction", "event_id", "model")
    assert {key: (row["model_version"], row["variant"], row["score"], row["features"]) for key, row in facts.items()} == {
        ("a", "repurchase"): ("v1", "champion", 0.8, "new"),
        ("b", "repurchase"): ("v1", "champion", 0.2, "new"),
        ("b", "upsell"): ("u1", "champion", 0.5, None),
        ("b2", "repurchase"): ("v1", "champion", 0.1, "new"),
        ("c", "repurchase"): ("v2", "challenger", 0.4, "new"),
        ("d", "repurchase"): ("v1", "champion", 0.3, "new"),
        ("young", "repurchase"): ("v1", "champion", 0.6, "new"),
    }
    one = facts["a", "repurchase"]
    assert [one[name] for name in ("type", "customer_id", "quantity", "amount_usd", "predicted_at")] == [
        *("purchase", "ann", 2, Decimal("12.50"), datetime(1997, 1, 1, tzinfo=UTC))
    ]
    assert set(truths(lake).values()) == {(None, None, None, False)}
    before = lake.snapshots()
    run(lake)
    assert lake.snapshots() == before
    assert "where false and" in lake.compiled("prediction_truth")  # it opened nothing but metadata

    # The horizon of the first of January is the first of April: known until then is not yet known beyond.
    lake.silver.append("purchase", [purchase("a1", "ann", "02-01", scored(0.9)), purchase("c1", "cat", "04-01")])
    run(lake)
    for model in ("fact_prediction", "prediction_truth"):
        assert "table_changes(" in lake.compiled(model), f"{model} read all"
    assert truths(lake) == {
        "a": (1, "event", "02-01", False),
        "a1": (None, None, None, False),
        "b": (None, None, None, False),
        "b2": (None, None, None, False),
        "c": (1, "event", "04-01", False),
        "d": (None, None, None, False),
        "young": (None, None, None, False),
    }
    lake.silver.append("purchase", [purchase("d1", "dan", "04-01 00:00:01", scored(0.5, "v2", "challenger"))])
    run(lake)
    assert truths(lake, "a", "b", "b2", "c", "d", "d1", "young") == {
        "a": (1, "event", "02-01", True),
        "b": (0, "event", "04-01", True),
        "b2": (0, "event", "04-01", True),
        "c": (1, "event", "04-01", True),
        "d": (0, "event", "04-01", True),
        "d1": (None, None, None, False),
        "young": (None, None, None, False),
    }
    counts = lake.sql(
        "SELECT model_version, variant, predictions, with_truth, judged, came_true FROM {gold}.mart_variants WHERE model = 'repurchase'"
    )
    assert sorted(counts) == [["v1", "champion", 6, 4, 4, 1], ["v2", "challenger", 2, 1, 1, 1]]

    # A late purchase, and what people say. Feedback for another version, and for what was never predicted, is of no prediction.
    lake.silver.append("purchase", [purchase("b3", "bob", "01-05")])
    lake.silver.append(
        "feedback",
        [
            feedback("f1", "a", 1.0),
            feedback("f2", "a", 0.0, observed_at=datetime(1997, 3, 1, tzinfo=UTC)),  # said at the same time: the greater id
            feedback("f3", "d", 1.0, source="support", event_source="cdnow"),
            feedback("f4", "d1", 1.0),
            feedback("f5", "d", 0.5, source="support"),
            feedback("f6", "b", 0.0, model="upsell", model_version="u1"),
            feedback("f7", "nothing", 1.0),
        ],
    )
    run(lake)
    assert truths(lake, "a", "b", "b2", "c", "d", "d1") == {
        "a": (0, "feedback", "03-01", True),
        "b": (1, "event", "01-05", True),
        "b2": (1, "event", "01-05", True),
        "c": (1, "event", "04-01", True),
        "d": (1, "feedback", "11-21 12:00:00", True),
        "d1": (None, None, None, False),
    }
    upsell = lake.rows("prediction_truth", "event_id", "model")["b", "upsell"]
    assert [upsell[name] for name in ("truth", "truth_from", "settled", "horizon_at")] == [0, "feedback", True, None]
    lake.build()
    before = lake.snapshots()
    run(lake)
    assert lake.snapshots() == before

    # Erased purchases take with them what they proved.
    lake.sql("DELETE FROM {silver}.purchase WHERE id = 'b3'")
    lake.sql("DELETE FROM {gold}.fact_purchase WHERE event_id = 'b3'")
    run(lake)
    assert truths(lake, "b", "c") == {"b": (0, "event", "04-01", True), "c": (1, "event", "04-01", True)}

    # A prediction of which nothing can be known yet only adds a row, here to tables that rows were marked as deleted in.
    lake.silver.append("purchase", [purchase("alone", "hal", "2027-09-02", scored(0.7), "other")])
    run(lake)
    assert truths(lake, "alone", "b") == {"alone": (None, None, None, False), "b": (0, "event", "04-01", True)}
    counts = lake.sql("SELECT model_version, predictions FROM {gold}.mart_variants WHERE model = 'repurchase'")
    assert sorted(counts) == [["v1", 7], ["v2", 2]]
    assert "table_changes(" not in lake.compiled("mart_variants")  # it would fail

    # Compaction writes them anew without the deleted ones: what comes after it is read alone.
    lake.sql("ALTER TABLE {gold}.prediction_truth EXECUTE optimize")
    lake.silver.append("purchase", [purchase("alone too", "ida", "2027-09-02", scored(0.6), "another")])
    run(lake)
    assert "table_changes(" in lake.compiled("mart_variants")
    counts = lake.sql("SELECT model_version, predictions FROM {gold}.mart_variants WHERE model = 'repurchase'")
    assert sorted(counts) == [["v1", 8], ["v2", 2]]


def history(random: Random, customers: int) -> Iterator[dict[str, Any]]:
    """Purchases of a year, scored: a fifth of the customers by a challenger that knows more; scores of two digits, so many are equal."""
    number = 0
    for customer in range(customers):
        faithful, variant = random.random(), "challenger" if random.random() < 0.2 else "champion"
        at = datetime(1997, 1, 1, tzinfo=UTC) + timedelta(days=random.randrange(200))
        while at < datetime(1998, 1, 1, tzinfo=UTC):
            number += 1
            noise = random.gauss(0, 0.15 if variant == "challenger" else 0.4)
            score = round(min(1.0, max(0.0, faithful + noise)), 2)
            version = "v2" if variant == "challenger" or at.month > 8 else "v1"  # the challenger is promoted in September
            row = purchase(
                f"p{number:05}", f"c{customer}", f"{at:%Y-%m-%d}", scored(score, version, variant if at.month <= 8 else "champion")
            )
            yield {**row, "received_at": at.replace(year=2025)}
            at += timedelta(days=random.expovariate(1 / (20 + 200 * (1 - faithful))) + 1)


def judged(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settled predictions of these purchases, each with its truth, by looking at every later purchase of its customer."""
    by_customer: dict[str, list[datetime]] = {}
    rows = list(rows)
    for row in rows:
        by_customer.setdefault(row["subject"], []).append(row["time"])
    until = max(row["time"] for row in rows)
    found = []
    for row in rows:
        if row["time"] + HORIZON < until:
            said = json.loads(row["enrichment"])["repurchase"]
            truth = any(row["time"] < at <= row["time"] + HORIZON for at in by_customer[row["subject"]])
            found.append({**row, **said, "truth": float(truth)})
    return found


def measures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What scikit-learn and scipy say of predictions with truth, and Hanley and McNeil of the error of an AUC."""
    truth, score = (np.array([row[name] for row in rows]) for name in ("truth", "score"))
    positives, negatives = truth.sum(), len(truth) - truth.sum()
    interval = binomtest(int(positives), len(truth)).proportion_ci(0.95, method="wilson")
    auc = roc_auc_score(truth, score)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    error = math.sqrt((auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)) / (positives * negatives))
    return {
        "judged": len(truth),
        "came_true": positives,
        "truth_share": truth.mean(),
        "truth_share_low": interval.low,
        "truth_share_high": interval.high,
        "mean_score_judged": score.mean(),
        "calibration_difference": score.mean() - truth.mean(),
        "log_loss": log_loss(truth, np.clip(score, 1e-6, 1 - 1e-6)),
        "brier": brier_score_loss(truth, score),
        "auc": auc,
        "auc_error": error,
        "auc_low": max(0.0, auc - Z * error),
        "auc_high": min(1.0, auc + Z * error),
    }


def mean_by_customer(rows: list[dict[str, Any]], values: list[float]) -> tuple[float, float]:
    """The mean of the values, and its variance with customers as what is independent."""
    mean = sum(values) / len(values)
    residuals: dict[str, float] = {}
    for row, value in zip(rows, values, strict=True):
        residuals[row["subject"]] = residuals.get(row["subject"], 0.0) + value - mean
    return mean, sum(each**2 for each in residuals.values()) / len(rows) ** 2 * len(residuals) / (len(residuals) - 1)


def comparison(challenger: list[dict[str, Any]], champion: list[dict[str, Any]]) -> dict[str, float]:
    """The challenger's means less the champion's, with 95 % intervals."""

    def losses(rows: list[dict[str, Any]]) -> list[float]:
        return [log_loss([row["truth"]], [min(max(row["score"], 1e-6), 1 - 1e-6)], labels=[0.0, 1.0]) for row in rows]

    found: dict[str, float] = {"champion_judged": len(champion)}
    for name, of in (("truth_share", lambda rows: [row["truth"] for row in rows]), ("log_loss", losses)):
        (mine, my_variance), (theirs, their_variance) = (mean_by_customer(rows, of(rows)) for rows in (challenger, champion))
        margin = Z * math.sqrt(my_variance + their_variance)
        found[f"{name}_difference"] = mine - theirs
        found[f"{name}_difference_low"], found[f"{name}_difference_high"] = mine - theirs - margin, mine - theirs + margin
    return found


def assert_close(row: Mapping[str, Any], expected: Mapping[str, float]) -> None:
    """Each expected figure is the row's, to the ninth digit."""
    assert {name: row[name] for name in expected} == pytest.approx(dict(expected), rel=1e-9, abs=1e-12)


def test_variants_are_measured_as_scikit_learn_does_and_compared_by_customer(lake: Warehouse) -> None:
    random = Random(11)
    rows = list(history(random, 700))
    random.shuffle(rows)
    late = len(rows) // 3
    for part, command in ((rows[late:], "run"), (rows[:late], "build")):
        lake.silver.append("purchase", part)
        built = lake.dbt(command)
        assert built.returncode == 0, built.stdout[-5000:]

    of = judged(rows)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    weeks: dict[tuple[str, str, date], list[dict[str, Any]]] = {}
    for row in of:
        groups.setdefault((row["version"], row["variant"]), []).append(row)
        day = row["time"].date()
        weeks.setdefault((row["version"], row["variant"], day - timedelta(days=day.weekday())), []).append(row)
    found = lake.rows("mart_variants", "model_version", "variant")
    assert groups.keys() == {("v1", "champion"), ("v2", "challenger"), ("v2", "champion")} == found.keys()
    for key, some in groups.items():
        assert_close(found[key], measures(some))
    assert sum(row["predictions"] for row in found.values()) == len(rows)

    # The champion while the challenger was there, and not the version that took its place.
    received = [row["received_at"] for row in rows if json.loads(row["enrichment"])["repurchase"]["variant"] == "challenger"]
    meanwhile = [row for row in of if row["variant"] == "champion" and min(received) <= row["received_at"] <= max(received)]
    assert_close(found["v2", "challenger"], comparison(groups["v2", "challenger"], meanwhile))
    assert found["v2", "challenger"]["log_loss_difference_high"] < 0  # it does know more
    assert found["v1", "champion"]["log_loss_difference"] is None

    by_week = lake.rows("mart_model_weeks", "model_version", "variant", "week")
    assert {key for key, row in by_week.items() if row["judged"]} == weeks.keys()
    for week_key, some in weeks.items():
        if len({row["truth"] for row in some}) == 2:
            assert_close(by_week[week_key], measures(some))
        else:
            assert by_week[week_key]["auc"] is None
    assert sum(row["predictions"] for row in by_week.values()) == len(rows)
