"""How much of requests may be in process at a time, over all connections of a worker: counted from the first byte read to the answer.

So what cannot be served is refused before it costs anything: neither memory, nor the work to judge it.
"""

from types import TracebackType
from typing import Self

from headrace.dead_letter import Unavailable


class Admission:
    """A number of bytes that requests in process share."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: of bodies, as sent."""
        self._max_bytes = max_bytes
        self.bytes = 0

    def request(self) -> "Share":
        """A request that begins. Use it as a context manager; what it took is given back at the end."""
        return Share(self)

    def take(self, count: int) -> None:
        """Count `count` bytes more. Raises Unavailable where there is no room for them, and counts nothing."""
        if self.bytes + count > self._max_bytes:
            raise Unavailable("the collector holds as many requests as it may")
        self.bytes += count

    def give(self, count: int) -> None:
        """Give `count` bytes back."""
        self.bytes -= count


class Share:
    """What one request took."""

    __slots__ = ("_admission", "_bytes")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._bytes = 0

    def take(self, count: int) -> None:
        """Count `count` bytes more for this request. Raises Unavailable."""
        self._admission.take(count)
        self._bytes += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._admission.give(self._bytes)
        self._bytes = 0
