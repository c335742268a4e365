"""The replay: what is due is sent, and once it is acknowledged the position moves on."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from producers.cdnow.pace import Due
from producers.cdnow.purchases import Purchase
from producers.client import MAX_EVENTS, Reply

TICK = 0.5  # seconds between requests, where there is time: one request for what came due meanwhile


class Sends(Protocol):
    """What the replay needs of a collector."""

    def send(self, events: Sequence[bytes]) -> Reply:
        """Returns once `events` are durable."""


class Clock(Protocol):
    """Time, to be waited for."""

    def now(self) -> float:
        """Seconds since some moment."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class RealClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def replay(
    purchases: Sequence[Purchase],
    places: range,
    due: Due,
    *,
    collector: Sends,
    sent: Callable[[int, Reply], None],
    clock: Clock,
) -> Counter[str]:
    """Send the purchases at `places`, each when it is due, and count the rejected by reason.

    `sent(position, reply)` is called after each acknowledged request. Time lost to an outage is not made up for: the pace goes on
    from where it was.
    """
    rejected: Counter[str] = Counter()
    begun, position, end = clock.now(), places.start, places.stop
    while position < end:
        elapsed = clock.now() - begun
        stop = position
        while stop < end and stop - position < MAX_EVENTS and due(stop) <= elapsed:
            stop += 1
        if stop == position:
            clock.sleep(max(TICK, due(position) - elapsed))
            continue
        before = clock.now()
        reply = collector.send([purchase.event() for purchase in purchases[position:stop]])
        begun += max(0.0, clock.now() - before - TICK)
        position = stop
        rejected.update(one.reason for one in reply.rejected)
        sent(position, reply)
    return rejected
