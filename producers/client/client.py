"""The client for threads."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from producers.client.backlog import Backlog
from producers.client.core import Core
from producers.client.events import TypedEvent
from producers.client.policy import GaveUp, RequestRefused
from producers.client.spool import QueueFull

_log = logging.getLogger("headrace.client")


class Client(Core):
    """Sends events to a collector, without making the caller wait for the network. For the arguments see Core.

    Safe to use from many threads. The callbacks run in the client's own thread: they must not wait for the client.
    """

    def send(
        self,
        event: TypedEvent,
        *,
        subject: str | None = None,
        id: str | None = None,
        time: datetime | str | None = None,
        source: str | None = None,
    ) -> str:
        """Hand in a typed event, and get its id. Raises InvalidEvent, QueueFull, OSError (of the spool's disk), RuntimeError (closed).

        `id` is made, and `time` is now, where they are not given: the same id again is the same event, which the platform keeps once.
        """
        return self._hand_in(*self._text(event, None, source, subject=subject, id=id, time=time))

    def track(
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
        """Hand in an event of the type named, as `send` does. `schema_ref` such as purchase/1-0-0 pins the schema of `data`."""
        return self._hand_in(*self._text(type, data, source, subject=subject, id=id, time=time, schema_ref=schema_ref))

    def flush(self, timeout: float | None = None) -> int:
        """Wait until all that was handed in before is acknowledged. Gives the number of events that are not, when `timeout` has passed.

        Raises RequestRefused where the collector takes nothing until a person mends something.
        """
        target = self._backlog.hurry()
        wait_until(self._backlog, lambda: self._flushed(target), timeout)
        return self._backlog.left(target)

    def close(self, timeout: float | None = 10.0) -> None:
        """Flush for at most `timeout`, then stop. What is left goes to the spool; without one, GaveUp says how many events are lost."""
        try:
            if not self._unusable:
                self.flush(timeout)
        finally:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        try:
            self.close()
        except (GaveUp, RequestRefused) as lost:
            if error is None:
                raise
            _log.error("%s", lost)  # the caller's own exception goes on

    def _hand_in(self, id: str, text: bytes) -> str:
        try:
            self._put(text)
        except QueueFull as full:
            if self._block == 0 or not wait_until(self._backlog, lambda: self._taken(text), self._block):
                raise full from None
        return id


def wait_until(backlog: Backlog, true: Callable[[], bool], timeout: float | None) -> bool:
    """Wait until `true()` or for `timeout` seconds, looking again at each change of `backlog`. Gives whether it is."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not true():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        changed = threading.Event()
        backlog.when_changed(changed.set)
        if true():  # it came before anybody was told to say so
            return True
        changed.wait(left)
    return True
