"""The customers' states in the online store: written from the lake by one copy of the API, read by all, a batch in one exchange."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from enrichment_api.customers import Columns, Key
from headrace.dead_letter import Unavailable
from headrace.features import ABSENT, STATE
from headrace.online import Busy, OnlineStore, connect, layout_of

TABLE = "customer_features"
READ_SECONDS = 0.05  # a read that takes longer is given up: who asks has less patience than this
_REST_SECONDS = 1.0  # after a failure nobody asks for so long, else each request would wait

_NOBODY = ABSENT.tobytes()

_log = structlog.get_logger()
_seconds = Histogram(
    "enrichment_api_online_seconds",
    "Time of a read of the online store, for all customers of a request",
    buckets=(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05),
)
_failed = Counter(
    "enrichment_api_online_failures_total", "Reads of the online store that failed: their events were scored as of new customers"
)
_written_at = Gauge("enrichment_api_online_written_timestamp_seconds", "When the online store was written last, as it says itself")
_rows = Gauge("enrichment_api_online_rows", "Customers in the online store, as it says itself")


def store(url: str, timeout: float = READ_SECONDS) -> OnlineStore:
    """The customers' rows in the Redis at `url`."""
    return OnlineStore(connect(url, timeout), TABLE, layout_of(STATE), STATE.itemsize)


class OnlineCustomers:
    """As `Customers`, but the states are in the online store. `available` says whether the last `states` could be read.

    Where it could not, every customer is ABSENT, and events say so ("unavailable"): no request fails for it.
    """

    def __init__(self, store: OnlineStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.available = True
        self.rows = 0
        self._store, self._clock = store, clock
        self._rest_until = 0.0

    def __len__(self) -> int:
        return self.rows

    def states(self, keys: Sequence[Key]) -> NDArray[Any]:
        """The state of each customer, ABSENT where there is none or the store does not answer."""
        began = self._clock()
        if began < self._rest_until:
            _failed.inc()
            return np.full(len(keys), ABSENT)
        try:
            found = self._store.read(keys)
        except Unavailable as error:
            if self.available:
                _log.warning("the online store is away: every customer is new until it is back", why=str(error))
            self.available, self._rest_until = False, self._clock() + _REST_SECONDS
            _failed.inc()
            return np.full(len(keys), ABSENT)
        if not self.available:
            _log.info("the online store answers again")
        self.available = True
        _seconds.observe(self._clock() - began)
        return np.frombuffer(b"".join(_NOBODY if row is None else row for row in found), STATE)


class OnlineCopy:
    """What a `Refresher` keeps in step with the lake, with the store in the place of memory."""

    def __init__(self, writer: OnlineStore, customers: OnlineCustomers) -> None:
        self._writer = writer
        self.customers = customers

    def take(self, parts: Callable[[], Iterable[Columns]], version: str) -> bool:
        """Write the rows of `parts` where the store has another version. Gives False where another copy does. Raises Unavailable."""
        written = self._writer.written()
        if written is None or written.version != version:
            try:
                written = self._writer.write(rows_of(parts()), version)
            except Busy:
                return False
            _log.info("the online store was written", customers=written.rows, version=version)
        self.customers.rows = written.rows
        _written_at.set(written.at)
        _rows.set(written.rows)
        return True


def rows_of(parts: Iterable[Columns]) -> Iterator[tuple[Key, bytes]]:
    """Each row as the store keeps it."""
    for keys, rows in parts:
        packed, size = rows.tobytes(), rows.dtype.itemsize
        for place, key in enumerate(keys):
            yield key, packed[place * size : (place + 1) * size]
