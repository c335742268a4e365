"""The client's own thread: takes batches from the backlog, sends them, several at a time, and repeats what failed, in order."""

import asyncio
import logging
import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from producers.client.backlog import Backlog, Batch
from producers.client.events import Event, read_event
from producers.client.policy import Reply, RequestRefused, backoff, verdict

OnRejected = Callable[[Event, str, str], None]
OnError = Callable[[RequestRefused], None]

_log = logging.getLogger("headrace.client")


class Transport(Protocol):
    """How requests go to a collector. Used from one event loop."""

    async def send(self, texts: Sequence[bytes]) -> Reply:
        """Returns once the events are durable. Those begun first arrive first. Raises RequestRefused."""

    async def reset(self) -> None:
        """Forget what is under way; the next `send` begins anew."""

    async def close(self) -> None:
        """Close the connections."""


class Engine:
    """Sends what is in `backlog` over what `connect` makes, at most `in_flight` requests at a time, until `stop`.

    After a failure all requests that are under way are sent again, so the order stays, and one at a time: a stream that fails does not say
    for which of them, and only one that fails alone is split or given up. `hold` is how many seconds to wait where a person must mend
    something. The callbacks run in the engine's thread.
    """

    def __init__(
        self,
        backlog: Backlog,
        connect: Callable[[], Transport],
        *,
        in_flight: int,
        hold: float,
        on_rejected: OnRejected | None,
        on_error: OnError | None,
    ) -> None:
        self._backlog, self._connect, self._in_flight, self._hold = backlog, connect, in_flight, hold
        self._on_rejected, self._on_error = on_rejected, on_error
        self.accepted = self.rejected = self.retried = 0
        self.died: BaseException | None = None
        self._sending: deque[tuple[Batch, asyncio.Task[Reply]]] = deque()
        self._again: deque[Batch] = deque()
        self._alone = False  # a batch of `_again` is under way, and nothing else
        self._failures = 0  # in a row
        self._runner = asyncio.Runner(loop_factory=_Loop)
        self._loop = self._runner.get_loop()
        self._awake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="headrace-client", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is something to do, perhaps."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._awake.set)

    def stop(self, timeout: float) -> list[Batch]:
        """Stop sending. Gives what was taken from the backlog and is not acknowledged, the oldest first."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(timeout)
        return [batch for batch, _ in self._sending] + list(self._again)

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()
        else:  # it has not begun
            self._loop.call_soon(self._cancel)

    def _main(self) -> None:
        try:
            with self._runner:
                self._runner.run(self._run())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            _log.exception("the client's thread ended")
            self.died = error
        finally:
            self._backlog.changed()

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        transport = self._connect()
        try:
            while True:
                self._awake.clear()
                self._begin(transport)
                await self._something(self._sending[0][1] if self._sending else None)
                while self._sending and self._sending[0][1].done():
                    await self._ended(transport)
        finally:
            for _, task in self._sending:
                task.cancel()
            await transport.close()

    def _room(self) -> bool:
        return not self._alone and len(self._sending) < self._in_flight

    def _begin(self, transport: Transport) -> None:
        """Send what is due, as far as there is room."""
        while self._room():
            self._alone = bool(self._again)
            batch = self._again.popleft() if self._again else self._backlog.take()
            if batch is None:
                return
            self._sending.append((batch, asyncio.create_task(transport.send(batch.texts))))

    async def _something(self, head: asyncio.Task[Reply] | None) -> None:
        """Wait for the answer to the oldest request or, where there is room, until there is more to send."""
        if head and not self._room():
            await asyncio.wait({head})
            return
        awake = asyncio.create_task(self._awake.wait())
        await asyncio.wait({awake, head} if head else {awake}, timeout=self._backlog.due_in(), return_when=asyncio.FIRST_COMPLETED)
        awake.cancel()

    async def _ended(self, transport: Transport) -> None:
        """The oldest request has ended, one way or the other."""
        batch, task = self._sending[0]
        try:
            reply = task.result()
            self._check(batch, reply)
        except RequestRefused as refused:
            await self._failed(refused, transport)
        except Exception as error:  # of a library below: nothing is lost where it passes
            _log.warning("a request failed", exc_info=True)
            await self._failed(RequestRefused(0, "client", f"{type(error).__name__}: {error}"), transport)
        else:
            self._sending.popleft()
            self._failures, self._backlog.held, self._alone = 0, None, False
            self.accepted += reply.accepted
            for one in reply.rejected:
                self._reject(batch.texts[one.index], one.reason, one.detail)
            self._backlog.done(batch)

    @staticmethod
    def _check(batch: Batch, reply: Reply) -> None:
        if reply.accepted + len(reply.rejected) != len(batch.texts) or any(one.index >= len(batch.texts) for one in reply.rejected):
            raise RequestRefused(200, "no_collector", f"the answer to {len(batch.texts)} events speaks of others")

    async def _failed(self, refused: RequestRefused, transport: Transport) -> None:
        """Take back all that is under way, do what the refusal asks for, and wait."""
        what = verdict(refused.status)
        for _, task in self._sending:
            task.cancel()
        await asyncio.gather(*(task for _, task in self._sending), return_exceptions=True)
        batches = [batch for batch, _ in self._sending]
        self._sending.clear()
        if what == "split" and len(batches) == 1:
            batches = self._split(batches[0], refused)
        self._alone = False
        self.retried += bool(batches)
        self._again.extendleft(reversed(batches))
        await transport.reset()
        if what == "split":
            return
        self._failures += 1
        wait = backoff(self._failures, refused.retry_after)
        if what == "hold":
            wait = random.uniform(self._hold / 2, self._hold)
            self._tell(self._on_error, refused)
            self._backlog.held = refused
            self._backlog.changed()
        if what == "hold" or self._failures == 1:
            _log.warning("%s; %d requests wait, next attempt in %.1f s", refused, len(batches), wait)
        await asyncio.sleep(wait)

    def _split(self, batch: Batch, refused: RequestRefused) -> list[Batch]:
        if len(batch.texts) > 1:
            if refused.status == 413:  # so the next ones are not too large
                self._backlog.batch_events = max(1, len(batch.texts) // 2)
            return list(batch.halves())
        self._reject(batch.texts[0], refused.code, refused.message)
        self._backlog.done(batch)
        return []

    def _reject(self, text: bytes, reason: str, detail: str) -> None:
        self.rejected += 1
        event = read_event(text)
        if self._on_rejected is None:
            _log.warning("event %s of type %s was rejected: %s: %s", event.id, event.type, reason, detail)
        self._tell(self._on_rejected, event, reason, detail)

    @staticmethod
    def _tell(callback: Callable[..., None] | None, *arguments: Any) -> None:
        if callback is not None:
            try:
                callback(*arguments)
            except Exception:
                _log.exception("a callback of the client failed")


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in its own thread: the usual pool of threads is closed before the last events are flushed at exit."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, **options)
