"""The client of the enrichment API: several requests for each batch, one deadline for all of them."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPException
from queue import SimpleQueue

import structlog

from enricher.answer import Answer, Failure, Why, answers_in, request_of
from enricher.breaker import CircuitBreaker
from enricher.connection import Connection, TooLong
from headrace import metrics
from headrace.event import RawEvent

MOST_EVENTS = 1000  # in one request: the enrichment API's own limit
_AT_A_TIME = 2  # one is scored while the other is on its way
_LOOKING_UP = 0.5  # seconds: what a thread may be late whose look-up of the host's name, which knows no deadline, hangs
_MOST_BYTES = 10_000  # of an answer, for each event asked about

Found = Sequence[Answer] | Failure  # for a request


class EnrichmentApi:
    """`score` is the one call."""

    def __init__(self, url: str, deadline_seconds: float, breaker: CircuitBreaker) -> None:
        self._deadline = deadline_seconds
        self._late: Found = Failure(Why.LATE, f"no whole answer within {deadline_seconds} s")
        self._breaker = breaker
        self._probe: Future[Found] = Future()
        self._probe.set_result([])
        self._log = structlog.get_logger()
        self._pool = ThreadPoolExecutor(_AT_A_TIME, "enrichment-api")
        self._connections: SimpleQueue[Connection] = SimpleQueue()
        for _ in range(_AT_A_TIME):
            self._connections.put(Connection(url))

    def score(self, events: Sequence[RawEvent]) -> Iterator[Answer | Failure]:
        """What the API says of each of `events`, in order, as it comes, within the deadline. Raises nothing that is the API's fault.

        All requests are under way before the first answer is waited for. While the circuit is open there are none; now and then the
        first events go out as a probe then, whose answer decides whether the next batch is asked about.
        """
        until = time.monotonic() + self._deadline
        if self._breaker.closed:
            chunks = [events[start : start + MOST_EVENTS] for start in range(0, len(events), MOST_EVENTS)]
            return self._answers([(len(chunk), self._pool.submit(self._ask, chunk, until)) for chunk in chunks], until)
        if self._probe.done() and self._breaker.may_probe():
            self._probe = self._pool.submit(self._ask, events[:MOST_EVENTS], until)
            self._probe.add_done_callback(lambda done: self._judge(done.result()))
        failure = Failure(Why.CIRCUIT_OPEN, "it failed again and again, so it is not asked but for a probe now and then")
        return iter([failure] * len(events))

    def _answers(self, asked: Sequence[tuple[int, Future[Found]]], until: float) -> Iterator[Answer | Failure]:
        good, found = True, self._late
        for count, answers in asked:
            try:
                found = answers.result(max(0.0, until + _LOOKING_UP - time.monotonic()))
            except TimeoutError:
                answers.cancel()
                found = self._late
            if isinstance(found, Failure):
                if good:  # a batch counts once
                    self._judge(found)
                good = False
                yield from [found] * count
            else:
                yield from found
        if good:
            self._judge(found)

    def _ask(self, events: Sequence[RawEvent], until: float) -> Found:
        connection = self._connections.get()
        try:
            status, body = connection.post("/v1/score", request_of(events), _MOST_BYTES * len(events), until)
        except TimeoutError:
            return self._late
        except TooLong as error:
            return Failure(Why.BAD_ANSWER, str(error))
        except (OSError, HTTPException) as error:
            return Failure(Why.NO_ANSWER, str(error) or type(error).__name__)
        finally:
            self._connections.put(connection)
        if status != HTTPStatus.OK:
            return Failure(Why.STATUS, f"status {status}: {body[:200].decode(errors='replace')}")
        return answers_in(body, len(events))

    def _judge(self, found: Found) -> None:
        before = self._breaker.closed
        if isinstance(found, Failure):
            self._breaker.failed()
            self._log.warning("enrichment API failed", why=found.why, detail=found.detail, asked_again=self._breaker.closed)
        else:
            self._breaker.succeeded()
            if not before:
                self._log.info("enrichment API answers again")
        metrics.CIRCUIT_OPEN.set(not self._breaker.closed)
