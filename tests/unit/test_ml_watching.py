"""What is said of predictions once it is known what came true: `ml/watching.py`."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.errors import BadScenario
from ml.gate import Check
from ml.measure import Fit, fit, histogram
from ml.rows import split
from ml.scenario import Scenario, Watch, named
from ml.watching import Judged, NotWatched, _bounds, _of_file, findings

CHURN = named("churn")


UNTIL = datetime(2026, 11, 22, tzinfo=UTC)
HORIZON = timedelta(days=10)
BOUNDS = Watch(days=20, least_rows=100, most_auc_loss=0.05, most_log_loss_gain=0.1, most_drift=0.25, stable=["score", "amount_usd"])


def predictions(rows: int, days_ago: tuple[float, float], seed: int = 7, right: bool = True, scale: float = 1.0) -> pd.DataFrame:
    """Made at moments from so many days ago; `right`: what is thought likely comes true as often."""
    chance = np.random.default_rng(seed)
    score = chance.uniform(0.05, 0.95, rows)
    truth = chance.uniform(size=rows) < (score if right else 1 - score)
    at = [UNTIL - timedelta(days=float(ago)) for ago in chance.uniform(*days_ago, rows)]
    return pd.DataFrame(
        {
            "predicted_at": at,
            "score": score,
            "truth": truth.astype(float),
            "quantity": 1.0,
            "amount_usd": scale * chance.lognormal(3, 1, rows),
        }
    )


def judged(rows: pd.DataFrame) -> Judged:
    return Judged(
        fit(rows["truth"].to_numpy(), rows["score"].to_numpy()),
        {name: histogram(rows[name].to_numpy()) for name in ("score", "amount_usd", "quantity")},
    )


HELD = judged(predictions(3000, (100, 200), seed=1))


def names(checks: list[Check], passed: bool) -> set[str]:
    return {each.name for each in checks if each.passed is passed}


ALL = {"AUC", "log loss", "drift of score", "drift of amount_usd"}


def test_what_is_as_it_was_judged_to_be_is_well() -> None:
    rows = predictions(3000, (0, 30))
    checks = findings(rows, HELD, BOUNDS, HORIZON, UNTIL)
    assert names(checks, passed=True) == ALL
    told = rows[pd.to_datetime(rows["predicted_at"], utc=True) < UNTIL - HORIZON]
    assert next(each.value for each in checks if each.name == "AUC") == pytest.approx(
        fit(told["truth"].to_numpy(), told["score"].to_numpy()).auc
    )
    assert next(each.bound for each in checks if each.name == "AUC") == HELD.fit.auc - 0.05


def test_what_comes_true_otherwise_breaks_auc_and_log_loss_and_no_drift() -> None:
    checks = findings(predictions(3000, (0, 30), right=False), HELD, BOUNDS, HORIZON, UNTIL)
    assert (names(checks, passed=False), names(checks, passed=True)) == ({"AUC", "log loss"}, {"drift of score", "drift of amount_usd"})


def test_what_is_scored_looks_otherwise() -> None:
    checks = findings(predictions(3000, (0, 30), scale=3), HELD, BOUNDS, HORIZON, UNTIL)
    assert names(checks, passed=False) == {"drift of amount_usd"}


def test_truth_that_is_known_early_is_not_judged_by() -> None:
    """That somebody bought is known at once: of the predictions whose horizon is not over, the truth that is known is 1 alone."""
    young = predictions(1000, (0, 9.9))
    young.loc[young["truth"] == 0, "truth"] = np.nan
    assert names(findings(young, HELD, BOUNDS, HORIZON, UNTIL), passed=True) == {"drift of score", "drift of amount_usd"}


def test_predictions_of_other_times_do_not_count() -> None:
    rows = pd.concat([predictions(1000, (10.1, 29.9)), predictions(5000, (30.1, 90), right=False, scale=9), predictions(500, (-9, 0))])
    assert names(findings(rows, HELD, BOUNDS, HORIZON, UNTIL), passed=True) == ALL


@given(st.integers(0, 99), st.integers(0, 99))
def test_of_too_few_nothing_is_said(old: int, young: int) -> None:
    rows = pd.concat([predictions(old, (20, 29), right=False), predictions(min(young, 99 - 0), (0, 9), scale=100)])
    rows.loc[pd.to_datetime(rows["predicted_at"], utc=True) > UNTIL - HORIZON, "truth"] = np.nan
    assert findings(rows, HELD, BOUNDS, HORIZON, UNTIL) == []


@given(st.integers(100, 400), st.randoms(use_true_random=False))
def test_the_order_of_rows_says_nothing_and_bounds_are_kept_exactly(rows: int, random: object) -> None:
    found = predictions(rows, (10.1, 19.9), seed=rows)
    other = found.sample(frac=1, random_state=rows)
    checks = findings(found, HELD, BOUNDS, HORIZON, UNTIL)
    for one, two in zip(checks, findings(other, HELD, BOUNDS, HORIZON, UNTIL), strict=True):
        assert (one.name, one.bound, one.relation) == (two.name, two.bound, two.relation)
        assert one.value == pytest.approx(two.value)
    auc = next(each.value for each in checks if each.name == "AUC")
    at_bound = Judged(Fit(1, 1, auc + BOUNDS.most_auc_loss + 1e-9, 9.0, 0.0), HELD.references)
    assert "AUC" in names(findings(found, at_bound, BOUNDS, HORIZON, UNTIL), passed=False)
    below = Judged(Fit(1, 1, auc + BOUNDS.most_auc_loss - 1e-9, 9.0, 0.0), HELD.references)
    assert "AUC" in names(findings(found, below, BOUNDS, HORIZON, UNTIL), passed=True)


def test_where_all_came_out_alike_nothing_passes_for_auc() -> None:
    rows = predictions(500, (10.1, 29.9)).assign(truth=0.0)
    assert {"AUC", "log loss"} <= names(findings(rows, HELD, BOUNDS, HORIZON, UNTIL), passed=False)


def test_a_scenario_that_is_not_watched_or_watches_what_is_not_there_is_refused() -> None:
    with pytest.raises(BadScenario, match=r"churn: it has no part `watch`"):
        _bounds(Scenario.read(CHURN))
    text = named("repurchase").read_text().replace("stable: [score, quantity, amount_usd]", "stable: [score, truth, recency_days]")
    with pytest.raises(BadScenario, match=r"prediction_truth has no recency_days, truth; it has score, quantity, amount_usd"):
        _bounds(Scenario.parse(text, "here"))
    with pytest.raises(BadScenario, match=r"`\$.watch`: a scenario with a `set` cannot be watched"):
        Scenario.parse(named("flights").read_text() + "watch: {days: 7}\n", "here")


def test_a_file_of_predictions_is_read_by_model_version_and_time(tmp_path: Path) -> None:
    from ml.registry import Version

    champion = Version("repurchase", 2, 0, "run", {"onnx_sha256": "ab" * 32})
    day = timedelta(days=1)
    rows = predictions(4, (0, 1)).assign(model="repurchase", model_version=champion.called)
    rows["predicted_at"] = pd.to_datetime([UNTIL - 40 * day, UNTIL - 3 * day, UNTIL - 2 * day, UNTIL - day], utc=True)
    rows.loc[1, "model_version"] = "1-ffffffff"
    rows.loc[3, "model"] = "churn"
    rows.to_parquet(tmp_path / "rows.parquet")
    found, until = _of_file(tmp_path / "rows.parquet", champion, 30 * day, None)
    assert (found.index.tolist(), until) == ([2], UNTIL - day)  # the day after the newest of the model
    found, until = _of_file(tmp_path / "rows.parquet", champion, 30 * day, (UNTIL - 20 * day).date())
    assert (found.index.tolist(), until) == ([0], UNTIL - 20 * day)
    (tmp_path / "bad.parquet").write_text("nothing")
    for name in ("bad.parquet", "none.parquet"):
        with pytest.raises(NotWatched, match=name) as refused:
            _of_file(tmp_path / name, champion, 30 * day, None)
        assert "\n" not in str(refused.value)


def test_a_split_moves_as_a_whole() -> None:
    text = CHURN.read_text().replace("split: {", "split: {learn_from: 1997-04-01, ")
    before = Scenario.parse(text, "here")
    after = before.ending(date(1998, 5, 2))
    by = timedelta(days=30)
    assert after.split.test_until - before.split.test_until == by
    assert (after.split.learn_from, after.split.tune_from, after.split.test_from) == (
        date(1997, 5, 1),
        before.split.tune_from + by,
        before.split.test_from + by,
    )
    assert Scenario.read(CHURN).ending(date(1998, 5, 2)).split.learn_from is None


def test_what_is_older_is_not_learnt_from() -> None:
    scenario = Scenario.parse(CHURN.read_text().replace("split: {", "split: {learn_from: 1997-04-01, "), "here")
    at = np.array(["1997-03-31T23:59:59", "1997-04-01", "1997-09-30", "1998-01-01"], "M8[us]")
    masks = split(scenario, at)
    assert masks.fit.tolist() == [False, True, True, False]
    assert masks.learn.tolist() == [False, True, False, False]
    assert masks.judge.tolist() == [False, False, False, True]
    with pytest.raises(BadScenario, match=r"`\$.split.learn_from`: no label from 1997-08-01 on is known before tune_from 1997-09-01"):
        Scenario.parse(CHURN.read_text().replace("split: {", "split: {learn_from: 1997-08-01, "), "here")
