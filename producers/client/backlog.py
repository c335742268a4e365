"""What was handed in and is not acknowledged yet: in memory, and on disk where there is a spool. Safe to use from several threads.

What is on disk is older than what is in memory: where memory is full, all of it goes to the end of the spool.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from producers.client.batches import batches
from producers.client.policy import RequestRefused
from producers.client.spool import Mark, QueueFull, Spool


class Batch(NamedTuple):
    """Events of one request. `mark` is that of the spool after the last of them."""

    texts: list[bytes]
    spooled: bool = False
    mark: Mark | None = None

    def halves(self) -> "tuple[Batch, Batch]":
        """The same events in two requests."""
        middle = len(self.texts) // 2
        return Batch(self.texts[:middle], self.spooled), Batch(self.texts[middle:], self.spooled, self.mark)


class Backlog:
    """Bounded by `max_events` and `max_bytes` in memory, beside what is being sent, and by the spool's own bound on disk.

    A batch of `batch_events` is due at once, a smaller one after `linger` seconds.
    """

    def __init__(
        self, spool: Spool | None, *, durable: bool, max_events: int, max_bytes: int, batch_events: int, batch_bytes: int, linger: float
    ) -> None:
        self.spool, self._durable = spool, durable
        self._max_events, self._max_bytes = max_events, max_bytes
        self.batch_events, self._batch_bytes, self._linger = batch_events, batch_bytes, linger
        self._lock = threading.Lock()
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._since = 0.0  # when the oldest in memory came
        self._waiting: list[Callable[[], object]] = []
        self.handed = spool.records if spool else 0  # counts of events
        self._taken = self._hurry = self.settled = 0
        self._closed = False
        self.held: RequestRefused | None = None  # why nothing is being sent until a person mends it
        self.wake: Callable[[], None] = lambda: None  # tells the engine that there is something to do

    @property
    def needs_disk(self) -> bool:
        """Whether the next `put` may wait for the disk."""
        return self._durable or (self.spool is not None and self._full(0))

    def put(self, text: bytes) -> None:
        """Take an event: onto the disk where the backlog is durable, else into memory. Raises QueueFull, or OSError of the disk."""
        if self._durable and self.spool:
            self._put_on_disk(self.spool, text)
            self.wake()
            return
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            if self._full(len(text)):
                self._spill()
            if first := not self._pending:
                self._since = time.monotonic()
            was_due = self._batch_is_full()
            self._pending.append(text)
            self._bytes += len(text) + 1
            self.handed += 1
            wake = first or (not was_due and self._batch_is_full())
        if wake:
            self.wake()

    def take(self) -> Batch | None:
        """The next batch that is due, or None."""
        batch = self._take()
        if batch and self._waiting:
            self.changed()  # there is room
        return batch

    def _take(self) -> Batch | None:
        with self._lock:
            if self.spool and (chunk := self.spool.read(self.batch_events, self._batch_bytes)):
                self.settled += chunk.lost
                self._taken += chunk.mark.records
                return Batch(chunk.texts, True, chunk.mark)
            if self._due_in() != 0:
                return None
            texts = next(batches(self._pending, self.batch_events, self._batch_bytes))
            for text in texts:
                self._pending.popleft()
                self._bytes -= len(text) + 1
            self._taken += len(texts)
            return Batch(texts)

    def due_in(self) -> float | None:
        """Seconds until `take` gives something of what is here now; None where there is nothing."""
        with self._lock:
            return self._due_in()

    def done(self, batch: Batch) -> None:
        """`batch` is acknowledged: the oldest that was taken and not done."""
        with self._lock:
            self.settled += len(batch.texts)
            if self.spool and batch.mark:
                self.spool.done(batch.mark)
        self.changed()

    def hurry(self) -> int:
        """Let nothing linger of what was handed in until now. Gives the count of it, for `left`."""
        with self._lock:
            self._hurry = target = self.handed
        self.wake()
        return target

    def left(self, target: int) -> int:
        """How many of the first `target` events are not acknowledged."""
        return max(0, target - self.settled)

    def when_changed(self, call: Callable[[], object]) -> None:
        """Call `call` once, soon after something was taken or acknowledged, or is held up."""
        with self._lock:
            self._waiting.append(call)

    def changed(self) -> None:
        """Tell those who wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for call in waiting:
            with suppress(RuntimeError):  # an event loop that is closed
                call()

    def close(self, unsent: list[Batch]) -> int:
        """Put what is in memory on disk, `unsent` (which was taken) first. Gives the number of events that have no place there."""
        with self._lock:
            taken = [text for batch in unsent if not batch.spooled for text in batch.texts]
            pending, self._pending, self._closed = list(self._pending), deque(), True
            if self.spool is None:
                return len(taken) + len(pending)
            lost = 0
            try:
                if pending:
                    self.spool.append(pending)
            except (QueueFull, OSError):
                lost += len(pending)
            try:
                if taken:
                    self.spool.put_first(taken)
            except OSError:
                lost += len(taken)
            self.spool.close()
            return lost

    def _put_on_disk(self, spool: Spool, text: bytes) -> None:
        try:
            spool.append([text])
        except OSError:  # the fsync failed: it is in the file, and is sent
            self._count(1)
            raise
        self._count(1)

    def _count(self, events: int) -> None:
        with self._lock:
            self.handed += events

    def _full(self, more: int) -> bool:
        return bool(self._pending) and (len(self._pending) >= self._max_events or self._bytes + more > self._max_bytes)

    def _batch_is_full(self) -> bool:
        return len(self._pending) >= self.batch_events or self._bytes >= self._batch_bytes

    def _spill(self) -> None:
        if self.spool is None:
            why = f": {self.held}" if self.held else ""
            raise QueueFull(f"{len(self._pending)} events ({self._bytes} bytes) wait to be sent{why}")
        try:
            self.spool.append(list(self._pending))
        except OSError:  # they are in the file, and are sent from there
            self._forget_pending()
            raise
        self._forget_pending()

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._bytes = 0

    def _due_in(self) -> float | None:
        if not self._pending:
            return None
        if self._batch_is_full() or self._taken < self._hurry:
            return 0
        return max(0.0, self._since + self._linger - time.monotonic())
