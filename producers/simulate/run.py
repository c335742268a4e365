"""Sending simulated events over several connections, and counting what became of them."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from headrace.dead_letter import Reason
from headrace.event import now
from producers.client import Collector, RequestRefused, batches
from producers.client.collector import EVENT_TYPE
from producers.simulate.visits import SimulatedEvent

Group = Sequence[SimulatedEvent]  # what goes in one request

TICK = 0.1  # seconds between requests at a set rate, where there is time


@dataclass
class Tally:
    """What was sent, what must come of it by the replies, and what the replies said. Reasons as the wire has them."""

    sent: Counter[str] = field(default_factory=Counter)  # by type; bad ones under "bad"
    expected_accepted: int = 0
    expected_rejected: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    later: Counter[str] = field(default_factory=Counter)  # accepted, but the enricher will refuse them

    @property
    def as_expected(self) -> bool:
        """Whether the replies said what they must."""
        return (self.accepted, self.rejected) == (self.expected_accepted, self.expected_rejected)

    def expect(self, events: Iterable[SimulatedEvent]) -> None:
        """Count `events` as sent."""
        for event in events:
            self.sent["bad" if event.refusal else event.attributes["type"]] += 1
            if event.refusal is None or event.refusal.by == "enricher":
                self.expected_accepted += 1
                self.later.update([event.refusal.reason.value] if event.refusal else [])
            else:
                self.expected_rejected[event.refusal.reason.value] += 1


def paced(events: Iterator[SimulatedEvent], rate: float | None, duration: float | None, size: int) -> Iterator[Group]:
    """`events` in lists of at most `size`: at `rate` a second, or as fast as they are taken; for `duration` seconds, or to their end."""
    begun, count = time.monotonic(), 0
    while True:
        elapsed = time.monotonic() - begun
        if duration is not None and elapsed >= duration:
            if rate is not None:  # what came due in the last tick
                yield from _cut(list(islice(events, max(0, round(rate * duration) - count))), size)
            return
        due = size if rate is None else min(size, int(rate * elapsed) - count)
        if due < 1:
            time.sleep(max(TICK, 1 / rate) if rate else TICK)
            continue
        some = list(islice(events, due))
        if not some:
            return
        count += len(some)
        yield some
        if rate is not None and due < size:
            time.sleep(TICK)


def _cut(events: Group, size: int) -> Iterator[Group]:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def run(groups: Iterable[Group], connect: Callable[[], Collector], connections: int) -> Tally:
    """Send `groups` over so many connections. Raises RequestRefused or GaveUp; the tally is complete where nothing is raised."""
    tally, lock = Tally(), threading.Lock()
    waiting: queue.Queue[Group | None] = queue.Queue(2 * connections)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with connect() as collector:
                while (group := _get(waiting, failures)) is not None:
                    accepted, rejected = _send(collector, group)
                    with lock:
                        tally.accepted += accepted
                        tally.rejected.update(rejected)
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=work, name=f"simulate-{number}", daemon=True) for number in range(connections)]
    for worker in workers:
        worker.start()
    try:
        for group in groups:
            tally.expect(group)
            _put(waiting, group, failures)
            if failures:
                break
        for _ in workers:
            _put(waiting, None, failures)
    except BaseException as error:
        failures.append(error)  # the workers end too
        raise
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return tally


def _get(waiting: "queue.Queue[Group | None]", failures: list[BaseException]) -> Group | None:
    """The next group; None where there will be none, or another worker failed."""
    while not failures:
        try:
            return waiting.get(timeout=0.5)
        except queue.Empty:
            continue
    return None


def _put(waiting: "queue.Queue[Group | None]", group: "Group | None", failures: list[BaseException]) -> None:
    while not failures:
        try:
            return waiting.put(group, timeout=0.5)
        except queue.Full:
            continue


def _send(collector: Collector, group: Group) -> tuple[int, Counter[str]]:
    """Send one group; what is not JSON goes alone, since it would spoil the request of the others."""
    moment, accepted, rejected = now(), 0, Counter[str]()
    for texts in batches(event.text(moment) for event in group if event.broken is None):
        reply = collector.send(texts)
        accepted += reply.accepted
        rejected.update(one.reason for one in reply.rejected)
    for event in group:
        if event.broken is not None:
            try:
                accepted += collector.send_body(event.broken, EVENT_TYPE).accepted
            except RequestRefused as error:
                if (error.status, error.code) != (400, Reason.UNPARSEABLE):
                    raise
                rejected[error.code] += 1
    return accepted, rejected
