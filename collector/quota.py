"""How much a key may send: events and bytes a second, by token buckets. Pure: time is a parameter.

A bucket holds BURST_SECONDS' worth. A request that is larger than the bucket passes where the bucket is full, and leaves a debt; so no
request is too large for ever, and in t seconds at most `max(burst, largest request) + rate * t` passes.
"""

import math
from typing import NamedTuple

BURST_SECONDS = 5.0


class Rates(NamedTuple):
    """Events and bytes a second; 0 is no limit."""

    events: float = 0
    bytes: float = 0


class OverQuota(Exception):
    """A request is refused as a whole, since its key has sent enough. `retry_after` is in whole seconds."""

    def __init__(self, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(f"this write key has sent as much as it may: send the same again in {self.retry_after} s")


class Bucket:
    """Lets `rate` a second pass, and `burst` at once."""

    __slots__ = ("_at", "_burst", "_level", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = self._level = burst
        self._at: float | None = None

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may pass; 0 where it may now. `now` is in seconds of a clock that only goes forward."""
        if self._at is not None and now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now if self._at is None else max(now, self._at)
        return max(0.0, min(amount, self._burst) - self._level) / self._rate

    def spend(self, amount: float) -> None:
        """`amount` passes."""
        self._level -= amount


class Quota:
    """What one key may send to one process."""

    __slots__ = ("_bytes", "_events")

    def __init__(self, rates: Rates, share: int = 1) -> None:
        """`share`: the number of processes that serve the key; each lets an equal part pass."""
        self._events = _bucket(rates.events / share)
        self._bytes = _bucket(rates.bytes / share)

    def take(self, events: int, size: int, now: float) -> None:
        """A request with so many events and bytes comes at `now`. Raises OverQuota, and counts nothing, where there is no room for it."""
        wait = 0.0
        if self._events:
            wait = self._events.wait(events, now)
        if self._bytes:
            wait = max(wait, self._bytes.wait(size, now))
        if wait > 0:
            raise OverQuota(wait)
        if self._events:
            self._events.spend(events)
        if self._bytes:
            self._bytes.spend(size)


def _bucket(rate: float) -> Bucket | None:
    return Bucket(rate, rate * BURST_SECONDS) if rate > 0 else None
