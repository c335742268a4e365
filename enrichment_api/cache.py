"""Scores that a version of a model gave before, by the bytes of the features. Exact: the same bytes give the same score."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter

from enrichment_api.model import Card, Model

_found = Counter("enrichment_api_cache_hits_total", "Rows whose score was in the cache")
_missed = Counter("enrichment_api_cache_misses_total", "Rows whose score the model had to be asked for")


class Scores(Protocol):
    """A `Model`, or what stands for it."""

    @property
    def card(self) -> Card: ...
    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each row of features."""


class Cached:
    """A model that remembers between `size` and twice as many rows: about 150 bytes each.

    Two generations instead of an order of use: what is asked for again moves to the young one, and where that is full, the old one goes.
    So a look costs nothing but a look. One for each version in memory, asked by one thread at a time.
    """

    def __init__(self, model: Model, size: int) -> None:
        self.card, self._model, self._size = model.card, model, size
        self._young: dict[bytes, float] = {}
        self._old: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """As the model's, which is asked once for all rows that are not known."""
        width = rows.shape[1] * rows.itemsize
        text = rows.tobytes()
        keys = [text[start : start + width] for start in range(0, len(text), width)]
        young, old = self._young, self._old
        values = [young.get(key, old.get(key)) for key in keys]
        unknown = [place for place, value in enumerate(values) if value is None]
        _found.inc(len(keys) - len(unknown))
        if unknown:
            _missed.inc(len(unknown))
            for place, value in zip(unknown, self._model.score(rows[unknown]).tolist(), strict=True):
                values[place] = value
        for key, value in zip(keys, values, strict=True):
            if key not in young:
                if len(young) >= self._size:
                    self._old, self._young = young, {}
                    young = self._young
                young[key] = value  # type: ignore[assignment]
        return np.array(values, np.float32)
