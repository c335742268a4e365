"""One connection to a collector, for who wants to wait for each request: `send` returns once the events are durable, or raises."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import httpx

from producers.client.batches import body_of
from producers.client.policy import GaveUp, Reply, RequestRefused, backoff, read_answer, verdict

PATH = "/v1/events"
BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"

_TIMEOUT = 30.0  # seconds; above the collector's own deadline, so that it answers first


class Collector:
    """Sends to the collector at `url`. Use each from one thread at a time.

    `patience` is how many seconds to go on trying while the collector cannot be reached or cannot take events; None is for ever.
    `on_wait(why, seconds)` is called before each wait.
    """

    def __init__(
        self,
        url: str,
        write_key: str,
        *,
        patience: float | None = None,
        on_wait: Callable[[str, float], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, auth=(write_key, ""), timeout=_TIMEOUT, transport=transport)
        self._patience = patience
        self._on_wait = on_wait
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._http.close()

    def send(self, events: Sequence[bytes]) -> Reply:
        """Send `events` (JSON texts of CloudEvents) in one request. Raises RequestRefused or GaveUp.

        A request whose answer got lost is sent again: give each event an id of its own, and the platform keeps one of them.
        """
        return self.send_body(body_of(events), BATCH_TYPE)

    def send_body(self, body: bytes, content_type: str) -> Reply:
        """Send `body` as it is. Raises RequestRefused or GaveUp."""
        begun, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                return self._try(body, content_type)
            except RequestRefused as refused:
                if verdict(refused.status) != "again":
                    raise
                why, wait = str(refused), backoff(attempt, refused.retry_after)
            if self._patience is not None and time.monotonic() - begun + wait > self._patience:
                raise GaveUp(f"{why} (tried {attempt} times)")
            if self._on_wait is not None:
                self._on_wait(why, wait)
            self._sleep(wait)

    def _try(self, body: bytes, content_type: str) -> Reply:
        try:
            response = self._http.post(PATH, content=body, headers={"content-type": content_type})
        except httpx.TransportError as error:
            raise no_answer(str(self._http.base_url), error) from None
        return read_answer(response.status_code, response.content, response.headers.get("retry-after"), str(response.url))


def no_answer(where: str, error: Exception) -> RequestRefused:
    """The collector could not be reached, or the connection broke."""
    return RequestRefused(0, "no_answer", f"no answer from {where}: {error or type(error).__name__}")
