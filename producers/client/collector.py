"""One connection to a collector. `send` returns once the events are durable there, or raises."""

import random
import time
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self

import httpx
import msgspec

from producers.client.batches import body_of

BATCH_TYPE = "application/cloudevents-batch+json"
EVENT_TYPE = "application/cloudevents+json"

_AGAIN = {408, 429, 500, 502, 503, 504}  # the request was not to blame
_TIMEOUT = 30.0  # seconds; above the collector's own deadline, so that it answers first
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0  # seconds


class Rejected(msgspec.Struct, frozen=True):
    """One event that was refused for good: its place in the request, and why. It stands in the dead-letter topic."""

    index: int
    reason: str
    detail: str
    id: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """What became of the events of one request."""

    accepted: int
    rejected: list[Rejected] = []


class RequestRefused(Exception):
    """The collector refused the request as a whole, and would do so again (a wrong write key, a body that is no JSON)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"the collector answered {status} ({code}): {message}")
        self.status, self.code, self.message = status, code, message


class GaveUp(Exception):
    """The collector could not take the events for longer than one was willing to wait. They may or may not be durable: send them again."""


class _Error(msgspec.Struct):
    code: str
    message: str


_reply = msgspec.json.Decoder(Reply)
_error = msgspec.json.Decoder(_Error)


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
            least = 0.0
            try:
                response = self._http.post("/v1/events", content=body, headers={"content-type": content_type})
            except httpx.TransportError as error:
                why = f"no answer from {self._http.base_url}: {error or type(error).__name__}"
            else:
                if response.status_code == httpx.codes.OK:
                    return _read_reply(response)
                if response.status_code not in _AGAIN:
                    raise _refusal(response)
                why = str(_refusal(response))
                least = retry_after(response.headers.get("retry-after"))
            wait = least + random.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt, 10)))
            if self._patience is not None and time.monotonic() - begun + wait > self._patience:
                raise GaveUp(f"{why} (tried {attempt} times)")
            if self._on_wait is not None:
                self._on_wait(why, wait)
            self._sleep(wait)


def retry_after(value: str | None) -> float:
    """The seconds that a Retry-After header asks for (as a number or a date, at most an hour); 0 where it cannot be read."""
    if not value:
        return 0.0
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), 3600.0)


def _read_reply(response: httpx.Response) -> Reply:
    try:
        return _reply.decode(response.content)
    except msgspec.DecodeError:
        raise RequestRefused(200, "no_collector", f"what answers at {response.url} is no Headrace collector") from None


def _refusal(response: httpx.Response) -> RequestRefused:
    try:
        error = _error.decode(response.content)
    except msgspec.DecodeError:
        error = _Error("http", response.text[:200] or response.reason_phrase)
    return RequestRefused(response.status_code, error.code, error.message)
