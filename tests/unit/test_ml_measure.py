"""Figures of models, against scikit-learn as the oracle and against what they mean."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from ml import measure

TRUTHS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 1.0])), min_size=2, max_size=60)


def arrays(rows: list[tuple[bool, float]]) -> tuple[measure.Numbers, measure.Numbers]:
    return np.array([float(true) for true, _ in rows]), np.array([score for _, score in rows])


@given(TRUTHS)
def test_auc_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    truth, score = arrays(rows)
    if len(set(truth)) < 2:
        assert np.isnan(measure.auc(truth, score))
    else:
        assert measure.auc(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))


@given(TRUTHS)
def test_log_loss_is_scikit_learns(rows: list[tuple[bool, float]]) -> None:
    truth, score = arrays(rows)
    sure = np.clip(score, 1e-6, 1 - 1e-6)
    assert measure.log_loss(truth, score) == pytest.approx(metrics.log_loss(truth, sure, labels=[0, 1]))


def test_calibration_error_is_how_far_probabilities_are_from_shares() -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(20_000)
    truth = (rng.random(20_000) < probability).astype(float)
    assert measure.calibration_error(truth, probability) < 0.02
    assert measure.calibration_error(truth, np.clip(probability + 0.2, 0, 1)) == pytest.approx(0.18, abs=0.03)


def test_segments_are_measured_on_their_own() -> None:
    truth, score = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.9, 0.1])
    found = measure.by_segment(truth, score, ["a", "a", "b", "b"])
    assert {name: (of.rows, of.auc) for name, of in found.items()} == {"a": (2, 1.0), "b": (2, 0.0)}


@given(st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=200))
def test_values_do_not_drift_from_themselves(values: list[float]) -> None:
    of = np.array(values)
    known = measure.histogram(of)
    assert measure.psi(known, of) == pytest.approx(0, abs=1e-9)
    assert sum(known.shares) == pytest.approx(1)


@given(
    st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), min_size=1, max_size=100),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100),
)
def test_drift_is_never_negative(one: list[float], other: list[float]) -> None:
    assert measure.psi(measure.histogram(np.array(one)), np.array(other)) >= 0


@pytest.mark.parametrize(
    ("change", "drifts"), [(lambda x: x, False), (lambda x: x * 100, True), (lambda x: np.where(x > 1, np.nan, x), True)]
)
def test_another_currency_and_missing_values_are_drift(change, drifts) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(2)
    known = measure.histogram(rng.lognormal(size=5_000))
    assert (measure.psi(known, change(rng.lognormal(size=5_000))) > 0.25) is drifts


CANDIDATES = st.lists(
    st.tuples(st.integers(0, 5), st.booleans(), st.sampled_from([0.1, 0.2, 0.3, 0.4]), st.integers(0, 2)), min_size=1, max_size=60
)


@given(CANDIDATES)
def test_a_ranking_is_what_a_plain_loop_says(rows: list[tuple[int, bool, float, int]]) -> None:
    """Each list on its own, sorted: its first wanted thing shares its place with what has the same score."""
    lists: dict[int, list[tuple[bool, float]]] = {}
    for number, true, score, _ in rows:
        lists.setdefault(number, []).append((true, score))
    missed = {number: beside for number, _, _, beside in rows}  # wanted, and no candidate
    places = []
    for number, candidates in lists.items():
        if not missed[number] and not any(true for true, _ in candidates):
            continue  # nobody wanted anything
        best = max((score for true, score in candidates if true), default=None)
        others = [score for true, score in candidates if not true]
        places.append(float("inf") if best is None else 1 + sum(s > best for s in others) + others.count(best) / 2)
    wanted = np.array([missed[number] + sum(true for true, _ in lists[number]) for number, *_ in rows], np.float64)
    truth, scores = np.array([float(row[1]) for row in rows]), np.array([row[2] for row in rows])
    found = measure.ranking(truth, scores, wanted, np.array([row[0] for row in rows]))
    assert found.lists == len(places)
    if places:
        assert found.hit_rate == pytest.approx(sum(place <= 5 for place in places) / len(places))
        assert found.mrr == pytest.approx(sum(1 / place for place in places) / len(places))
    else:
        assert np.isnan(found.hit_rate)
        assert np.isnan(found.mrr)


def test_what_is_no_candidate_is_missed() -> None:
    """One list with the right thing first, one where what was wanted was not even among the candidates, one of who wanted nothing."""
    truth, score, lists = np.array([1.0, 0, 0, 0, 0]), np.array([0.9, 0.1, 0.5, 0.4, 0.3]), np.array([0, 0, 1, 1, 2])
    found = measure.ranking(truth, score, np.array([1.0, 1, 2, 2, 0]), lists)
    assert (found.lists, found.hit_rate, found.mrr) == (2, 0.5, 0.5)
