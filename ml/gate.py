"""Whether a model may be promoted: decided by its figures on held-out time alone. Pure.

It has to beat every rival (the baseline; the champion, where there is one) over all, must nowhere be much worse than one of them, has to
mean what it says (calibration), and what it was judged on has to look like what it learnt from (drift).
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from ml.measure import Fit, Ranking
from ml.scenario import Bounds


class Report(msgspec.Struct, frozen=True):
    """What a model reached on the held-out rows: over all, in each segment, and of the order of lists where rows are candidates."""

    overall: Fit
    segments: dict[str, Fit]
    ranking: Ranking | None = None


class Check(msgspec.Struct, frozen=True):
    """One question: `value` has to be above (`>`) or at most (`<=`) `bound`. What is no number never passes."""

    name: str
    value: float
    relation: str
    bound: float

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return self.value > self.bound if self.relation == ">" else self.value <= self.bound

    def __str__(self) -> str:
        """As it stands in the registry."""
        return f"{self.name} {self.value:.4f} is {'' if self.passed else 'not '}{self.relation} {self.bound:.4f}"


class Verdict(msgspec.Struct, frozen=True):
    """All checks. A model passes where every one does, and there is one."""

    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether a person may promote the model."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why not: a sentence for each check that failed."""
        return [str(check) for check in self.checks if not check.passed]


def judge(candidate: Report, rivals: Mapping[str, Report], drifts: Mapping[str, float], bounds: Bounds) -> Verdict:
    """The verdict on `candidate`. Rivals were measured on the same rows; `drifts` has the PSI of what should be stable."""
    checks: list[Check] = []
    for rival, report in rivals.items():
        checks += _against(rival, candidate, report, bounds)
    checks.append(Check("calibration error", candidate.overall.calibration_error, "<=", bounds.most_calibration_error))
    checks += [Check(f"drift of {name}", value, "<=", bounds.most_drift) for name, value in drifts.items()]
    return Verdict(checks)


def _against(rival: str, candidate: Report, report: Report, bounds: Bounds) -> Sequence[Check]:
    checks = [
        Check(f"AUC against the {rival}'s", candidate.overall.auc, ">", report.overall.auc + bounds.least_gain),
        Check(f"log loss against the {rival}'s", candidate.overall.log_loss, "<=", report.overall.log_loss),
    ]
    if candidate.ranking and report.ranking:
        checks.append(Check(f"MRR against the {rival}'s", candidate.ranking.mrr, ">", report.ranking.mrr))
    for name, theirs in report.segments.items():
        if theirs.rows >= bounds.least_segment:
            ours = candidate.segments.get(name)
            most = theirs.log_loss * (1 + bounds.most_segment_loss)
            checks.append(Check(f"log loss in {name!r} against the {rival}'s", ours.log_loss if ours else math.nan, "<=", most))
    return checks
