"""The client of the enrichment API: several requests for each batch, one deadline for all of them."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx
import structlog

from enricher.answer import Answer, Failure, Why, answers_in, request_of
from enricher.breaker import CircuitBreaker
from headrace import metrics
from headrace.event import RawEvent

MOST_EVENTS = 1000  # in one request: the enrichment API's own limit
_AT_A_TIME = 2  # one is scored while the other is on its way
_MOST_BYTES = 10_000  # of an answer, for each event asked about
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}
_KEEP_SECONDS = 4.0  # less than the server's 5, so that it never closes a connection that is just taken up again

T = TypeVar("T")


class EnrichmentApi:
    """`score` is the one call. The requests are made on a thread of their own, which ends with the process."""

    def __init__(self, url: str, deadline_seconds: float, breaker: CircuitBreaker) -> None:
        self._deadline = deadline_seconds
        self._breaker = breaker
        self._log = structlog.get_logger()
        self._turns = asyncio.Semaphore(_AT_A_TIME)
        # No time-outs of its own: a deadline holds for the whole, however slowly bytes drip.
        self._http = httpx.AsyncClient(base_url=url, headers=_HEADERS, timeout=None, limits=httpx.Limits(keepalive_expiry=_KEEP_SECONDS))  # noqa: S113
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="enrichment-api", daemon=True).start()

    def score(self, events: Sequence[RawEvent]) -> list[Answer | Failure]:
        """What the API says of each of `events`, in order, within the deadline. Raises nothing that is the API's fault.

        While the circuit is open it returns at once; now and then the first events go out as a probe then, whose answer decides
        whether the next batch is asked about.
        """
        chunks = [events[start : start + MOST_EVENTS] for start in range(0, len(events), MOST_EVENTS)]
        if self._breaker.closed:
            return self._start(self._scored(chunks)).result()
        if self._breaker.may_probe():
            self._start(self._scored(chunks[:1]))
        return [Failure(Why.CIRCUIT_OPEN, "it failed again and again, so it is not asked but for a probe now and then")] * len(events)

    def _start(self, what: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    async def _scored(self, chunks: Sequence[Sequence[RawEvent]]) -> list[Answer | Failure]:
        asked = [asyncio.ensure_future(self._ask(chunk)) for chunk in chunks]
        _, late = await asyncio.wait(asked, timeout=self._deadline)
        for one in late:
            one.cancel()
        await asyncio.gather(*late, return_exceptions=True)  # their connections are closed
        answers: list[Answer | Failure] = []
        failure = None
        for chunk, one in zip(chunks, asked, strict=True):
            found = Failure(Why.LATE, f"no whole answer within {self._deadline} s") if one in late else one.result()
            if isinstance(found, Failure):
                failure = found
                answers += [found] * len(chunk)
            else:
                answers += found
        self._judge(failure)
        return answers

    def _judge(self, failure: Failure | None) -> None:
        before = self._breaker.closed
        if failure is None:
            self._breaker.succeeded()
            if not before:
                self._log.info("enrichment API answers again")
        else:
            self._breaker.failed()
            self._log.warning("enrichment API failed", why=failure.why, detail=failure.detail, asked_again=self._breaker.closed)
        metrics.CIRCUIT_OPEN.set(not self._breaker.closed)

    async def _ask(self, events: Sequence[RawEvent]) -> Sequence[Answer] | Failure:
        most, body = _MOST_BYTES * len(events), bytearray()
        try:
            async with self._turns, self._http.stream("POST", "/v1/score", content=request_of(events)) as response:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > most:
                        return Failure(Why.BAD_ANSWER, f"its answer is longer than {most} bytes")
        except httpx.HTTPError as error:
            return Failure(Why.NO_ANSWER, str(error) or type(error).__name__)
        if response.status_code != httpx.codes.OK:
            return Failure(Why.STATUS, f"status {response.status_code}: {body[:200].decode(errors='replace')}")
        return answers_in(body, len(events))
