"""What an answer of a collector means, and how long to wait before asking again. Pure."""

import random
import time
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds, of the back-off without a Retry-After
MOST_RETRY_AFTER = 3600.0  # seconds that we wait at most because a server says so

Verdict = Literal["again", "split", "hold"]


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
    """The collector refused the request as a whole. `status` is HTTP's (gRPC's codes are translated), 0 where there was no answer.

    `retry_after` is in seconds.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"the collector answered {status} ({code}): {message}" if status else message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after


class GaveUp(Exception):
    """The collector could not take the events for longer than one was willing to wait. They may or may not be durable: send them again."""


class _Error(msgspec.Struct):
    code: str
    message: str


_reply = msgspec.json.Decoder(Reply)
_error = msgspec.json.Decoder(_Error)


def verdict(status: int) -> Verdict:
    """What to do after a request was refused with `status`.

    `again`: the same request may pass later. `split`: it is too large, or something in it cannot be read: send its parts. `hold`: no
    request will pass until a person mends something (a wrong write key, a wrong address).
    """
    if status in (0, 408, 425, 429) or status >= 500:
        return "again"
    return "split" if status in (400, 413, 422) else "hold"


def backoff(attempt: int, retry_after: float = 0.0) -> float:
    """Seconds to wait after the `attempt`th failure in a row (from 1): `retry_after`, and on top a random part of a growing span."""
    return retry_after + random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 10)))


def seconds_of(retry_after: str | None) -> float:
    """The seconds that a Retry-After header asks for (as a number or a date, at most an hour); 0 where it cannot be read."""
    if not retry_after:
        return 0.0
    try:
        number = retry_after.strip().isdigit()
        seconds = float(retry_after) if number else parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), MOST_RETRY_AFTER)


def read_answer(status: int, body: bytes, retry_after: str | None, where: str) -> Reply:
    """The reply in an HTTP response. Raises RequestRefused where it is none."""
    if status == 200:
        try:
            return _reply.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RequestRefused(200, "no_collector", f"what answers at {where} is no Headrace collector") from None
    try:
        error = _error.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = _Error("http", body[:200].decode(errors="replace") or f"no reason given by {where}")
    raise RequestRefused(status, error.code, error.message, seconds_of(retry_after))
