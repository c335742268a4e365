"""Whether a variant keeps its bounds within a sliding window. Pure: time is given, never asked."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from enrichment_api.release import Bounds

SLICES = 60  # of a window: what is older leaves it a slice at a time, so that its memory does not grow with the load


class Broken(StrEnum):
    """Which bound."""

    ERRORS = "error_rate"
    LATENCY = "p99_ms"


@dataclass(slots=True)
class _Slice:
    number: int
    calls: int = 0
    slow: int = 0
    events: int = 0
    errors: int = 0


class Guard:
    """What a variant did lately. Once it broke a bound, it stays so (`broken`): who comes back by itself would flap.

    The p99 is the nearest-rank one: it is above the bound exactly where more than n - ceil(0.99 n) of n calls took longer.
    """

    def __init__(self, bounds: Bounds, broken: Broken | None = None) -> None:
        self.broken = broken
        self._bounds = bounds
        self._width = bounds.window_seconds / SLICES
        self._slices: deque[_Slice] = deque()
        self._calls = self._slow = self._events = self._errors = 0

    def saw(self, now: float, seconds: float, events: int, errors: int) -> Broken | None:
        """A call at `now` (of a clock that does not go back) took `seconds` for `events`, of which `errors` got no score.

        Gives the bound that this call broke, the first time only.
        """
        if self.broken:
            return None
        number = int(now // self._width)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(_Slice(number))
        while self._slices[0].number <= number - SLICES:
            self._forget(self._slices.popleft())
        present = self._slices[-1]
        slow = seconds * 1000 > self._bounds.p99_ms
        present.calls += 1
        present.slow += slow
        present.events += events
        present.errors += errors
        self._calls += 1
        self._slow += slow
        self._events += events
        self._errors += errors
        self.broken = self._judged()
        return self.broken

    def _forget(self, old: _Slice) -> None:
        self._calls -= old.calls
        self._slow -= old.slow
        self._events -= old.events
        self._errors -= old.errors

    def _judged(self) -> Broken | None:
        if self._calls < self._bounds.min_calls:
            return None
        if self._errors > self._bounds.error_rate * self._events:
            return Broken.ERRORS
        return Broken.LATENCY if self._slow > self._calls - -(-99 * self._calls // 100) else None
