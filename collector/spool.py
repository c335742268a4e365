"""The spool: while Kafka does not take messages they go to disk, and are sent later, in order.

- Group commit: all requests that wait are one write and one `fdatasync`, in a thread.
- While there is something in the spool, everything goes through it. So of two requests, of which the second came after the first was
  answered, the first one's messages are first in their partitions. (Between two worker processes nothing is promised.)
- While Kafka takes what is sent, a write waits until twice as much was sent as the one before it wrote; so the spool empties under any
  load. Then the requests that wait for the disk are told to go to Kafka themselves.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog

from collector import metrics
from collector.spool_files import Item, SpoolFiles, frames
from headrace.dead_letter import Unavailable

Keyed = tuple[bytes, bytes]
Messages = Sequence[tuple[str, Sequence[Keyed]]]  # by topic

SEND_BYTES = 8_000_000  # of messages that are sent at a time
_GROUP_BYTES = 8_000_000  # of messages that are written at a time
_AGAIN = 0.5  # seconds until something that failed is tried again
_FAILED_FOR = 3.0  # seconds that a failed write counts as "not ready"

_log = structlog.get_logger()


class _Entry:
    """A request that waits for the disk. `done`: True once its messages are there, False where Kafka is to be asked again."""

    __slots__ = ("bytes", "done", "messages", "willing")

    def __init__(self, messages: Messages, size: int, *, willing: bool) -> None:
        self.messages = messages
        self.bytes = size
        self.willing = willing
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Spool:
    """The way round Kafka. `run` must run beside `put`."""

    def __init__(self, files: SpoolFiles, *, deadline: float, max_waiting_bytes: int) -> None:
        """`deadline`: seconds that a request may wait for the disk. `max_waiting_bytes`: bound on what waits for it."""
        self._files = files
        self._deadline = deadline
        self._max_waiting = max_waiting_bytes
        self._waiting: deque[_Entry] = deque()
        self._waiting_bytes = 0
        self._writing = False
        self._wanted = asyncio.Event()  # something waits to be written
        self._stored = asyncio.Event()  # something is on disk that Kafka does not have
        self._owed = 0  # bytes that are to be sent before the next write
        self._progress = asyncio.Event()  # they were sent, or could not be
        self._taking = False  # whether Kafka took what was sent last
        self._failure: tuple[str, float] | None = None
        self.holds = not files.empty
        if self.holds:
            self._stored.set()

    @property
    def problem(self) -> str | None:
        """Why the spool can take no events, or None where it can."""
        if self._files.full:
            return "the spool is full"
        if self._failure and asyncio.get_running_loop().time() < self._failure[1]:
            return self._failure[0]
        return None

    async def put(self, messages: Messages, size: int, *, willing: bool) -> bool:
        """Return True once the messages, of `size` bytes, are on disk, or False where the spool has emptied and Kafka takes messages again.

        The latter is told only to those who are `willing` to hear it. Raises Unavailable where there is no room, or the disk fails.
        """
        if self._waiting_bytes + size > self._max_waiting:
            raise Unavailable("too much waits for the spool's disk")
        entry = _Entry(messages, size, willing=willing)
        self._waiting.append(entry)
        self._waiting_bytes += size
        self.holds = True
        self._wanted.set()
        try:
            return await asyncio.wait_for(entry.done, self._deadline)
        except TimeoutError:
            raise Unavailable("the spool's disk did not answer in time") from None

    async def run(self, send: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        """Write what waits, and send what is written, until cancelled. `send` returns once Kafka has all; it raises Unavailable."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            tasks.create_task(self._send(send))

    async def close(self) -> None:
        """Let go of the files. What is in them is sent after the next start."""
        await asyncio.to_thread(self._files.close)

    async def _write(self) -> None:
        while True:
            await self._wanted.wait()
            if self._taking and self._owed:
                try:
                    await asyncio.wait_for(self._progress.wait(), self._deadline / 4)
                except TimeoutError:
                    self._taking = False
            group = self._next_group()
            if not group:
                continue
            self._writing = True
            failure = await asyncio.to_thread(self._append, group)
            self._writing = False
            self._owed = 2 * sum(entry.bytes for entry in group)
            self._progress.clear()
            self._answer(group, failure)

    def _next_group(self) -> list[_Entry]:
        group: list[_Entry] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0].bytes <= _GROUP_BYTES):
            entry = self._waiting.popleft()
            self._waiting_bytes -= entry.bytes
            if not entry.done.done():  # who has gone or given up was not told that it is durable
                group.append(entry)
                size += entry.bytes
        if not self._waiting:
            self._wanted.clear()
        if not group:
            self._look()
        return group

    def _append(self, group: Sequence[_Entry]) -> str | None:
        """Runs in a thread. Returns why it failed."""
        try:
            self._files.append(one for entry in group for topic, keyed in entry.messages for one in frames(topic, keyed))
        except Unavailable as full:
            return str(full)
        except OSError as error:
            return f"the spool cannot be written: {error.strerror}"
        return None

    def _answer(self, group: Sequence[_Entry], failure: str | None) -> None:
        if failure and not self._failure:
            _log.error("the spool takes no events", why=failure)
        self._failure = (failure, asyncio.get_running_loop().time() + _FAILED_FOR) if failure else None
        for entry in group:
            if entry.done.done():
                continue
            if failure:
                entry.done.set_exception(Unavailable(failure))
            else:
                entry.done.set_result(True)
        self._look()

    async def _send(self, send: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        while True:
            await self._stored.wait()
            try:
                items, size = await asyncio.to_thread(self._files.read, SEND_BYTES)
                if items:
                    await self._sent(items, send)
                    await asyncio.to_thread(self._files.done, size)
                    self._owed = max(0, self._owed - size)
            except OSError as error:
                _log.error("a spool file cannot be read or removed", why=str(error))
                await asyncio.sleep(_AGAIN)
            if not self._owed or self._files.empty:
                self._owed = 0
                self._progress.set()
            self._look()

    async def _sent(self, items: Sequence[Item], send: Callable[[Sequence[Item]], Awaitable[None]]) -> None:
        while True:
            try:
                await send(items)
            except Unavailable:
                self._taking = False
                self._progress.set()
                await asyncio.sleep(_AGAIN)
            else:
                self._taking = True
                return

    def _look(self) -> None:
        """Know whether there is something in the spool; where there is not, those who wait for the disk need not."""
        metrics.SPOOL_BYTES.set(self._files.size)
        if not self._files.empty:
            self._stored.set()
            return
        self._stored.clear()
        if self._writing or (self._waiting and not (self._taking and all(entry.willing for entry in self._waiting))):
            return
        for entry in self._waiting:
            with contextlib.suppress(asyncio.InvalidStateError):
                entry.done.set_result(False)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._wanted.clear()
        self.holds = False
