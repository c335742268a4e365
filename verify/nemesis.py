"""The nemesis: a schedule of faults from a seed, carried out on the running platform, each written down with what came of it.

Faults of different stations may overlap, so that they meet; of one station there is one at a time, so that the recovery is its own.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from verify.faults import Fault
from verify.watch import CURATED

_HOLD_SECONDS = (1.0, 6.0)
# Kafka's session time-out is 10 s: now and then a consumer is still for longer, and comes back as one that was given up.
_LONG_HOLD_SECONDS = 13.0
_LONG_SHARE = 0.15
RECOVERY_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class Planned:
    """A fault to come: of which kind, and for how long once it has begun."""

    number: int
    kind: str
    hold_seconds: float


@dataclass(frozen=True)
class Happened:
    """A fault that is over. Moments are seconds since the epoch.

    `outage_seconds` is from its beginning to its end (a process works again, a link is whole); `recovery_seconds` from then until
    everything that had come to the station by then was past it (of the collector: until the next success; of a curation: until one came
    through), None where that was not seen.
    """

    number: int
    kind: str
    station: str
    began: float
    outage_seconds: float
    recovery_seconds: float | None
    problem: str | None = None


def schedule(seed: int, count: int, kinds: Sequence[str], short: bool = False) -> list[Planned]:
    """`count` faults: all kinds in a random order, then all again in another. The same for the same seed."""
    rand = random.Random(seed)
    planned: list[Planned] = []
    while len(planned) < count:
        round_ = sorted(kinds)
        rand.shuffle(round_)
        for kind in round_[: count - len(planned)]:
            hold = rand.uniform(*_HOLD_SECONDS)
            if rand.random() < _LONG_SHARE:
                hold = _LONG_HOLD_SECONDS
            planned.append(Planned(len(planned), kind, round(min(hold, 2.5) if short else hold, 1)))
    return planned


def startable(waiting: Sequence[Planned], touches: Mapping[str, frozenset[str]], busy: frozenset[str]) -> Planned | None:
    """The first that touches no busy station, nor one that an earlier fault waits for: so each comes in its turn."""
    taken = set(busy)
    for planned in waiting:
        if not taken & touches[planned.kind]:
            return planned
        taken |= touches[planned.kind]
    return None


class Nemesis:
    """Carries out a schedule in `lanes` threads. `recovered(station, since)` gives the moment at which a station had caught up, or None."""

    def __init__(
        self,
        planned: Sequence[Planned],
        kinds: Mapping[str, Callable[[], Fault]],
        recovered: Callable[[str, float], float | None],
        log: Path,
        lanes: int,
    ) -> None:
        self._waiting = list(planned)
        self._kinds = kinds
        self._touches = {kind: make().touches for kind, make in kinds.items()}
        self._recovered = recovered
        self._log = log
        self._busy: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._lane, name=f"nemesis-{number}", daemon=True) for number in range(lanes)]
        self.happened: list[Happened] = []
        self.under_way: dict[int, str] = {}

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether all faults are over."""
        return not any(thread.is_alive() for thread in self._threads)

    def stop(self) -> None:
        """Begin no further fault, and wait for the end of those under way."""
        with self._changed:
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _lane(self) -> None:
        while (planned := self._take()) is not None:
            fault = self._kinds[planned.kind]()
            try:
                happened = self._carry_out(planned, fault)
            finally:
                with self._changed:
                    self._busy -= fault.touches
                    del self.under_way[planned.number]
                    self._changed.notify_all()
            with self._changed:
                self.happened.append(happened)
                with self._log.open("a") as log:
                    log.write(json.dumps(asdict(happened)) + "\n")

    def _take(self) -> Planned | None:
        with self._changed:
            while self._waiting:
                planned = startable(self._waiting, self._touches, self._busy)
                if planned is not None:
                    self._waiting.remove(planned)
                    self._busy |= self._touches[planned.kind]
                    self.under_way[planned.number] = planned.kind
                    return planned
                self._changed.wait()
            return None

    def _carry_out(self, planned: Planned, fault: Fault) -> Happened:
        began, problem = time.time(), None
        try:
            try:
                fault.begin()
                time.sleep(planned.hold_seconds if fault.station != CURATED else 0)
            finally:
                ending = time.time()
                fault.end()
        except Exception as error:  # it is said in the log and in the report, where such a fault does not count
            problem = f"{type(error).__name__}: {error}"
        if fault.station == CURATED:  # `end` is the recovery
            ended, recovery = ending, None if problem else round(time.time() - ending, 2)
        else:
            ended = time.time()
            recovery = self._recovery(fault.station, ended)
        return Happened(planned.number, planned.kind, fault.station, round(began, 3), round(ended - began, 2), recovery, problem)

    def _recovery(self, station: str, since: float) -> float | None:
        while time.time() - since < RECOVERY_LIMIT_SECONDS:
            moment = self._recovered(station, since)
            if moment is not None:
                return round(moment - since, 2)
            time.sleep(0.1)
        return None


def by_kind(happened: Sequence[Happened]) -> Counter[str]:
    """How often each kind did happen."""
    return Counter(fault.kind for fault in happened if fault.problem is None)
