"""When not to ask the enrichment API: pure, given a clock."""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed: everything is asked. After `failures` failed batches in a row it opens: nothing is asked, but for a probe each `seconds`.

    The first success closes it again. A probe costs no batch any time: who sends it does not wait for its answer.
    """

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._seconds = seconds
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0

    @property
    def closed(self) -> bool:
        """Whether to ask."""
        return self._failures < self._most

    def succeeded(self) -> None:
        """A batch, or the probe, was answered in full."""
        self._failures = 0

    def failed(self) -> None:
        """A batch, or the probe, was not."""
        self._failures += 1
        self._probe_at = self._clock() + self._seconds

    def may_probe(self) -> bool:
        """Whether one request is to go out now, though it is open (half-open). Says so once each `seconds`."""
        due = not self.closed and self._clock() >= self._probe_at
        if due:
            self._probe_at = self._clock() + self._seconds
        return due
