"""What the enrichment API remembers and how much it takes on: bounded, and never wrong."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from enrichment_api.admission import Admission, Busy
from enrichment_api.cache import Cached
from enrichment_api.model import Model
from headrace.features import FEATURES
from tests import models


class Counting(Model):
    """A real model that answers by the row (the first feature), and says how many rows it was asked about."""

    asked = 0

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked += len(rows)
        return super().score(rows)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Counting:
    folder = models.release(tmp_path_factory.mktemp("model"), "v1", models.first_feature())
    return Counting.load(folder)


def _rows(values: list[float]) -> NDArray[np.float32]:
    found = np.zeros((len(values), len(FEATURES)), np.float32)
    found[:, 0] = values
    return found


@given(st.integers(1, 20), st.lists(st.lists(st.sampled_from([i / 64 for i in range(64)]), min_size=1, max_size=50), max_size=20))
def test_a_remembered_score_is_that_of_the_model_and_memory_is_bounded(model: Counting, size: int, batches: list[list[float]]) -> None:
    cached = Cached(model, size)
    for batch in batches:
        assert cached.score(_rows(batch)).tolist() == batch
        assert len(cached) <= 2 * size


def test_what_is_known_is_not_asked_again(model: Counting) -> None:
    cached = Cached(model, 10)
    before = model.asked
    for batch in ([0.25, 0.5], [0.5, 0.25], [0.25, 0.75, 0.75]):
        assert cached.score(_rows(batch)).tolist() == batch
    assert model.asked - before == 4  # 0.25, 0.5, and 0.75 twice in one batch
    for n in range(15):  # what is asked for again and again outlives what is not
        cached.score(_rows([0.25, n / 64]))
    before = model.asked
    cached.score(_rows([0.25]))
    assert model.asked == before


class Requests(RuleBasedStateMachine):
    """Whatever comes and goes, no more is under way than may be, and in the end nothing is."""

    def __init__(self) -> None:
        super().__init__()
        self.admission, self.held = Admission(3, 100), list[int]()

    @rule(count=st.integers(0, 120))
    def begin(self, count: int) -> None:
        fits = len(self.held) < 3 and sum(self.held) + count <= 100
        try:
            self.admission.enter(count)
            self.held.append(count)
            assert fits
        except Busy:
            assert not fits

    @precondition(lambda self: self.held)
    @rule(count=st.integers(0, 120))
    def grow(self, count: int) -> None:
        fits = sum(self.held) + count <= 100
        try:
            self.admission.more(count)
            self.held[-1] += count
            assert fits
        except Busy:
            assert not fits

    @precondition(lambda self: self.held)
    @rule(first=st.booleans())
    def end(self, first: bool) -> None:
        self.admission.leave(self.held.pop(0 if first else -1))

    @invariant()
    def counts(self) -> None:
        assert (self.admission.requests, self.admission.bytes) == (len(self.held), sum(self.held))


TestRequests = Requests.TestCase


def test_a_model_that_answers_by_the_row_is_what_the_cache_is_tested_with(model: Counting, tmp_path: Path) -> None:
    assert model.score(_rows([0.125, 0.5])).tolist() == [0.125, 0.5]
