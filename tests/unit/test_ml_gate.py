"""The gate: what passes, what does not, and that no worse model passes where a better one does not."""

import math
from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ml.gate import Report, Verdict, judge
from ml.measure import Fit, Ranking
from ml.scenario import Bounds

BOUNDS = Bounds()
NUMBER = st.floats(0, 1) | st.just(float("nan"))
FIT = st.builds(Fit, rows=st.integers(1, 2_000), positives=st.just(1), auc=NUMBER, log_loss=NUMBER, calibration_error=NUMBER)
REPORT = st.builds(Report, overall=FIT, segments=st.dictionaries(st.sampled_from("abc"), FIT))
DRIFTS = st.dictionaries(st.sampled_from(["score", "amount"]), st.floats(0, 2) | st.just(float("nan")))


def fit(auc: float, log_loss: float, calibration: float = 0.01, rows: int = 1_000) -> Fit:
    return Fit(rows, 300, auc, log_loss, calibration)


GOOD = Report(fit(0.82, 0.40), {"new": fit(0.7, 0.5), "old": fit(0.8, 0.3)})
WEAK = Report(fit(0.80, 0.42), {"new": fit(0.7, 0.5), "old": fit(0.8, 0.3)})


def test_a_model_that_beats_all_rivals_passes() -> None:
    verdict = judge(GOOD, {"baseline": WEAK, "champion": WEAK}, {"score": 0.1}, BOUNDS)
    assert verdict.passed
    assert verdict.reasons == []


def test_a_worse_model_is_kept_out_with_the_reasons() -> None:
    verdict = judge(WEAK, {"baseline": WEAK, "champion": GOOD}, {"score": 0.1}, BOUNDS)
    assert verdict.reasons == [
        "AUC against the baseline's 0.8000 is not > 0.8000",
        "AUC against the champion's 0.8000 is not > 0.8200",
        "log loss against the champion's 0.4200 is not <= 0.4000",
    ]


def test_one_bad_segment_keeps_a_model_out_and_a_small_one_does_not() -> None:
    worse_for_new = Report(GOOD.overall, {"new": fit(0.6, 0.6), "old": fit(0.9, 0.2)})
    assert judge(worse_for_new, {"baseline": WEAK}, {}, BOUNDS).reasons == [
        "log loss in 'new' against the baseline's 0.6000 is not <= 0.5100"
    ]
    few = Report(WEAK.overall, {"new": fit(0.7, 0.5, rows=499), "old": WEAK.segments["old"]})
    assert judge(worse_for_new, {"baseline": few}, {}, BOUNDS).passed


def test_a_segment_that_the_candidate_does_not_know_keeps_it_out() -> None:
    verdict = judge(Report(GOOD.overall, {}), {"baseline": WEAK}, {}, BOUNDS)
    assert [reason.split(" against")[0] for reason in verdict.reasons] == ["log loss in 'new'", "log loss in 'old'"]


def test_probabilities_that_do_not_mean_what_they_say_and_drift_keep_a_model_out() -> None:
    unsure = msgspec.structs.replace(GOOD, overall=fit(0.82, 0.40, calibration=0.2))
    assert judge(unsure, {"baseline": WEAK}, {"amount": 0.3}, BOUNDS).reasons == [
        "calibration error 0.2000 is not <= 0.0500",
        "drift of amount 0.3000 is not <= 0.2500",
    ]


def test_no_checks_are_no_pass() -> None:
    assert not Verdict([]).passed


@given(REPORT, REPORT, DRIFTS)
def test_a_model_never_passes_against_itself_nor_without_numbers(candidate: Report, rival: Report, drifts: dict[str, float]) -> None:
    assert not judge(candidate, {"baseline": rival, "champion": candidate}, drifts, BOUNDS).passed
    nothing = msgspec.structs.replace(candidate, overall=Fit(1, 0, math.nan, math.nan, math.nan))
    assert not judge(nothing, {"baseline": rival}, drifts, BOUNDS).passed


@dataclass(frozen=True)
class Worse:
    auc: float
    log_loss: float
    calibration: float
    drift: float

    def of(self, fit: Fit) -> Fit:
        return Fit(fit.rows, fit.positives, fit.auc - self.auc, fit.log_loss + self.log_loss, fit.calibration_error + self.calibration)


@given(REPORT, REPORT, DRIFTS, st.builds(Worse, *(st.floats(0, 1) for _ in range(4))))
def test_what_is_worse_in_everything_passes_only_where_the_better_does(
    candidate: Report, rival: Report, drifts: dict[str, float], by: Worse
) -> None:
    worse = Report(by.of(candidate.overall), {name: by.of(each) for name, each in candidate.segments.items()})
    worse_drifts = {name: value + by.drift for name, value in drifts.items()}
    if judge(worse, {"baseline": rival}, worse_drifts, BOUNDS).passed:
        assert judge(candidate, {"baseline": rival}, drifts, BOUNDS).passed


@given(REPORT, REPORT, REPORT, DRIFTS)
def test_one_rival_more_never_helps(candidate: Report, one: Report, other: Report, drifts: dict[str, float]) -> None:
    if judge(candidate, {"baseline": one, "champion": other}, drifts, BOUNDS).passed:
        assert judge(candidate, {"baseline": one}, drifts, BOUNDS).passed


def test_lists_in_a_worse_order_are_kept_out() -> None:
    popular = Report(WEAK.overall, WEAK.segments, Ranking(900, 0.6, 0.40))
    assert judge(Report(GOOD.overall, GOOD.segments, Ranking(900, 0.7, 0.45)), {"baseline": popular}, {}, BOUNDS).passed
    worse = Report(GOOD.overall, GOOD.segments, Ranking(900, 0.7, 0.40))
    assert judge(worse, {"baseline": popular}, {}, BOUNDS).reasons == ["MRR against the baseline's 0.4000 is not > 0.4000"]
