"""The client for asyncio: the same thread does the sending, so a busy event loop does not stop it, and one that is closed loses nothing."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

from producers.client.core import Core
from producers.client.events import TypedEvent
from producers.client.policy import GaveUp, RequestRefused
from producers.client.spool import QueueFull

_log = logging.getLogger("headrace.client")


class AsyncClient(Core):
    """`Client` for coroutines: what waits there for room, for the disk or for acknowledgement is awaited here. For the arguments see Core.

    The callbacks run in the client's own thread: use `loop.call_soon_threadsafe` in them.
    """

    async def send(
        self,
        event: TypedEvent,
        *,
        subject: str | None = None,
        id: str | None = None,
        time: datetime | str | None = None,
        source: str | None = None,
    ) -> str:
        """Hand in a typed event, as `Client.send` does."""
        return await self._hand_in(*self._text(event, None, source, subject=subject, id=id, time=time))

    async def track(
        self,
        type: str,
        data: Mapping[str, Any],
        *,
        subject: str | None = None,
        id: str | None = None,
        time: datetime | str | None = None,
        source: str | None = None,
        schema_ref: str | None = None,
    ) -> str:
        """Hand in an event of the type named, as `Client.track` does."""
        return await self._hand_in(*self._text(type, data, source, subject=subject, id=id, time=time, schema_ref=schema_ref))

    async def flush(self, timeout: float | None = None) -> int:
        """Wait for acknowledgement, as `Client.flush` does."""
        target = self._backlog.hurry()
        await self._until(lambda: self._flushed(target), timeout)
        return self._backlog.left(target)

    async def close(self, timeout: float | None = 10.0) -> None:
        """Flush and stop, as `Client.close` does."""
        try:
            if not self._unusable:
                await self.flush(timeout)
        finally:
            await asyncio.to_thread(self._stop)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        try:
            await self.close()
        except (GaveUp, RequestRefused) as lost:
            if error is None:
                raise
            _log.error("%s", lost)  # the caller's own exception goes on

    async def _hand_in(self, id: str, text: bytes) -> str:
        try:
            if self._backlog.needs_disk:
                await asyncio.to_thread(self._put, text)
            else:
                self._put(text)
        except QueueFull as full:
            if self._block == 0 or not await self._until(lambda: self._taken(text), self._block):
                raise full from None
        return id

    async def _until(self, true: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until `true()` or for `timeout` seconds, looking again at each change of the backlog. Gives whether it is."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not true():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            changed = asyncio.Event()
            self._backlog.when_changed(partial(loop.call_soon_threadsafe, changed.set))
            if true():  # it came before anybody was told to say so
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), left)
        return True
