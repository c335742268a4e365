"""What the consumers' loop decides without any I/O: what is in a batch, when it is full, how long to wait, when to give up."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from headrace.dead_letter import Invalid, Reason
from headrace.messages import Message, Partition, Rejected

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """A batch is delivered as soon as it has this many messages, or bytes of values, or is this many seconds old."""

    messages: int
    bytes: int
    seconds: float


class Batch(Generic[T]):
    """Messages that were read and are not final yet.

    `offsets` is where reading goes on once they are final: one after the last message of each partition. A message below that is a
    repetition (a seek went back) and is not taken twice.
    """

    def __init__(self) -> None:
        self.items: list[tuple[Message, T]] = []
        self.rejected: list[Rejected] = []
        self.offsets: dict[Partition, int] = {}
        self.bytes = 0
        self.opened_at = 0.0

    def __len__(self) -> int:
        return len(self.items) + len(self.rejected)

    def add(self, messages: Iterable[Message], parse: Callable[[Message], T], now: float) -> None:
        """Take `messages` in order. What `parse` refuses as Invalid is kept as rejected; anything else it raises goes through."""
        if not self:
            self.opened_at = now
        items, offsets = self.items, self.offsets
        for message in messages:
            partition = message.topic(), message.partition()
            offset = message.offset()
            if offset < offsets.get(partition, 0):
                continue
            try:
                items.append((message, parse(message)))
            except Invalid as refusal:
                self.rejected.append(Rejected(message, refusal.reason, refusal.detail))
            offsets[partition] = offset + 1
            self.bytes += len(message.value() or b"")

    def refuse(self, message: Message, reason: Reason, detail: str, now: float) -> None:
        """Take a message that is not even to be parsed."""
        if not self:
            self.opened_at = now
        self.rejected.append(Rejected(message, reason, detail))
        self.offsets[_place(message)] = message.offset() + 1
        self.bytes += len(message.value() or b"")

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget all that came from `partitions`: somebody else reads them now."""
        gone = set(partitions)
        self.items = [item for item in self.items if _place(item[0]) not in gone]
        self.rejected = [refusal for refusal in self.rejected if _place(refusal.message) not in gone]
        self.offsets = {partition: offset for partition, offset in self.offsets.items() if partition not in gone}
        self.bytes = sum(len(message.value() or b"") for message in self.messages())

    def messages(self) -> Iterator[Message]:
        """All messages, accepted ones first."""
        yield from (message for message, _ in self.items)
        yield from (refusal.message for refusal in self.rejected)

    @property
    def starts(self) -> dict[Partition, int]:
        """The first offset of each partition."""
        found: dict[Partition, int] = {}
        for message in self.messages():
            partition = _place(message)
            found[partition] = min(message.offset(), found.get(partition, message.offset()))
        return found

    def room(self, limits: Limits) -> int:
        """How many messages more it takes."""
        return max(0, limits.messages - len(self))

    def is_full(self, limits: Limits, now: float) -> bool:
        """Whether it is to be delivered now."""
        return bool(self) and (len(self) >= limits.messages or self.bytes >= limits.bytes or now - self.opened_at >= limits.seconds)


def _place(message: Message) -> Partition:
    return message.topic(), message.partition()


_LEAST_IN_DOUBT = 20  # messages; fewer say nothing, and a single bad one must not keep the service from starting


@dataclass(frozen=True)
class RejectLimit:
    """More than `share` of the messages of the last `seconds`, of which there are at least `least`: that is a bad deploy, not bad data."""

    share: float
    least: int = 1000
    seconds: float = 60.0


class TooManyRejects(Exception):
    """The service stops before it dead-letters what it probably misunderstands; the batch stays uncommitted."""


class RejectWatch:
    """Counts what passes against a RejectLimit."""

    def __init__(self, limit: RejectLimit) -> None:
        self._limit = limit
        self._least = limit.least
        self._seen: deque[tuple[float, int, int]] = deque()  # when, messages, rejected

    def doubt(self) -> None:
        """The process before us stopped at the limit: a few messages are enough now, or each start would let as many through."""
        self._least = min(self._least, _LEAST_IN_DOUBT)

    def check(self, messages: int, rejected: int, now: float) -> None:
        """Raises TooManyRejects where a batch with this many would cross the limit."""
        recent = [seen for seen in self._seen if now - seen[0] <= self._limit.seconds]
        all_messages = messages + sum(seen[1] for seen in recent)
        all_rejected = rejected + sum(seen[2] for seen in recent)
        if rejected and all_messages >= self._least and all_rejected > self._limit.share * all_messages:
            raise TooManyRejects(
                f"{all_rejected} of the last {all_messages} messages would be rejected, more than the share {self._limit.share} "
                "that is allowed: look at the last deploy and at the tracking plan, or raise MAX_REJECT_SHARE of this service"
            )

    def count(self, messages: int, rejected: int, now: float) -> None:
        """A batch is final."""
        if messages >= _LEAST_IN_DOUBT:
            self._least = self._limit.least
        self._seen.append((now, messages, rejected))
        while now - self._seen[0][0] > self._limit.seconds:
            self._seen.popleft()


def back_off(first: float = 0.2, most: float = 10.0, rand: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds to wait before each next attempt: doubling up to `most`, each between half and whole, so that no two copies keep step."""
    wait = first
    while True:
        yield wait * (0.5 + rand() / 2)
        wait = min(wait * 2, most)
