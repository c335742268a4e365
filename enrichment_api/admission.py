"""How much may be under way at once. What is beyond is refused before it costs anything, so that what was begun is answered in time."""

from prometheus_client import Gauge

_requests = Gauge("enrichment_api_in_flight_requests", "Scoring requests under way")
_bytes = Gauge("enrichment_api_in_flight_bytes", "Bytes of the bodies of scoring requests under way")


class Busy(Exception):
    """There is no room; the text says which bound is reached."""


class Admission:
    """Counts requests and the bytes of their bodies, from the first to the answer. For one event loop."""

    def __init__(self, most_requests: int, most_bytes: int) -> None:
        self._most_requests, self._most_bytes = most_requests, most_bytes
        self.requests = self.bytes = 0

    def enter(self, count: int) -> None:
        """A request of `count` bytes (0 where it does not say) begins. Raises Busy, and then it does not."""
        if self.requests >= self._most_requests:
            raise Busy(f"{self.requests} requests are under way (ENRICHMENT_API_MAX_IN_FLIGHT)")
        self.more(count)
        self.requests += 1
        _requests.set(self.requests)

    def more(self, count: int) -> None:
        """A request that began has `count` bytes more than it had said. Raises Busy, and then they are not counted."""
        if self.bytes + count > self._most_bytes:
            raise Busy(f"{self.bytes} bytes are under way (ENRICHMENT_API_MAX_IN_FLIGHT_BYTES)")
        self.bytes += count
        _bytes.set(self.bytes)

    def leave(self, count: int) -> None:
        """A request of `count` bytes in all has its answer."""
        self.requests -= 1
        self.bytes -= count
        _requests.set(self.requests)
        _bytes.set(self.bytes)
