"""How well probabilities fit what came, and how far one set of values is from another. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.floating[Any]]
BINS = 10
FIRST = 5  # so many of a list are looked at
_LEAST = 1e-4  # the share of an empty bin, so that a PSI is finite
_SURE = 1e-6  # a probability is never surer than this: one event would make the log loss infinite


class Fit(msgspec.Struct, frozen=True):
    """Of some rows: `auc` of the order (0.5 is chance, 1 perfect; NaN where all came out alike), `log_loss` of the values (0 is best),
    `calibration_error` how far in the mean a probability is from the share that came true among those like it."""

    rows: int
    positives: int
    auc: float
    log_loss: float
    calibration_error: float


def fit(truth: Numbers, probability: Numbers) -> Fit:
    """Measure probabilities (0 to 1) against what came (0 or 1), of one row or more."""
    return Fit(
        rows=len(truth),
        positives=int(truth.sum()),
        auc=auc(truth, probability),
        log_loss=log_loss(truth, probability),
        calibration_error=calibration_error(truth, probability),
    )


def by_segment(truth: Numbers, probability: Numbers, segment: Sequence[str]) -> dict[str, Fit]:
    """Each segment on its own."""
    names = np.asarray(segment)
    return {str(name): fit(truth[names == name], probability[names == name]) for name in sorted(set(segment))}


class Ranking(msgspec.Struct, frozen=True):
    """Of the lists in which anything was wanted: `hit_rate` is the share with something wanted among the first five, `mrr` the mean of
    1 / the place of the first one (0 where it is no candidate)."""

    lists: int
    hit_rate: float
    mrr: float


def ranking(truth: Numbers, score: Numbers, wanted: Numbers, lists: NDArray[np.integer[Any]]) -> Ranking:
    """Measure the order of candidates. `lists` has the number of each row's list, `wanted` how many that list should have.

    Equal scores share their places: among n that are not wanted, the first that is stands in the middle.
    """
    number = int(lists.max(initial=-1)) + 1
    first = np.full(number, -np.inf)  # the best score of what was wanted
    true = truth > 0.5
    np.maximum.at(first, lists[true], score[true])
    above = np.bincount(lists, weights=(score > first[lists]) & ~true, minlength=number)
    beside = np.bincount(lists, weights=(score == first[lists]) & ~true, minlength=number)
    place = np.where(np.isfinite(first), 1 + above + beside / 2, np.inf)
    counts = np.bincount(lists, weights=wanted, minlength=number) > 0
    if not counts.any():
        return Ranking(0, float("nan"), float("nan"))
    return Ranking(int(counts.sum()), float((place[counts] <= FIRST).mean()), float((1 / place[counts]).mean()))


def auc(truth: Numbers, score: Numbers) -> float:
    """The chance that a row that came true has a higher score than one that did not; equal scores count half."""
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    if not len(values):
        return float("nan")
    ranks = np.cumsum(counts) - (counts - 1) / 2
    true = truth > 0.5
    positives, negatives = int(true.sum()), int((~true).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks[inverse][true].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(truth: Numbers, probability: Numbers) -> float:
    """The mean of minus the logarithm of the probability that was given to what came."""
    p = np.clip(np.asarray(probability, dtype=np.float64), _SURE, 1 - _SURE)
    return float(-np.mean(np.where(truth > 0.5, np.log(p), np.log1p(-p))))


def calibration_error(truth: Numbers, probability: Numbers, bins: int = BINS) -> float:
    """The mean distance between probability and share that came true, over bins of about as many rows each."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(abs(truth[part].mean() - probability[part].mean()) * len(part) for part in parts) / len(truth))


class Histogram(msgspec.Struct, frozen=True):
    """How values of a column are distributed. `edges` are inner ones, rising: a value is in bin i where i of them are below it or equal
    to it; the last share is that of missing values."""

    edges: list[float]
    shares: list[float]


def histogram(values: Numbers, bins: int = BINS) -> Histogram:
    """Bins of about as many of `values` each (NaN: missing)."""
    there = values[~np.isnan(values)]
    edges = sorted({float(edge) for edge in np.quantile(there, np.arange(1, bins) / bins)}) if len(there) else []
    return Histogram(edges, _shares(values, edges))


def psi(of: Histogram, values: Numbers) -> float:
    """The population stability index of `values` against a histogram: 0 is alike; from 0.25 on it is usually called another population."""
    if not len(values):
        return float("nan")
    now, then = np.maximum(_shares(values, of.edges), _LEAST), np.maximum(of.shares, _LEAST)
    return float(np.sum((now - then) * np.log(now / then)))


def drift(reference: Mapping[str, Histogram], columns: Mapping[str, Numbers]) -> dict[str, float]:
    """The PSI of each column that has a reference."""
    return {name: psi(reference[name], values) for name, values in columns.items() if name in reference}


def _shares(values: Numbers, edges: Sequence[float]) -> list[float]:
    missing = np.isnan(values)
    there = np.bincount(np.searchsorted(np.asarray(edges), values[~missing], side="right"), minlength=len(edges) + 1)
    return [float(count) for count in np.append(there, missing.sum()) / max(len(values), 1)]
