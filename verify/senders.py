"""The producer: requests over REST and gRPC, each in the ledger before it is sent, at a steady rate, with bounded work under way."""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import httpx

from collector.v1.collector_pb2 import PublishReply
from verify.events import Factory, Kind, Protocol, Request
from verify.ledger import Intent, Ledger, Outcome, Result, Sent

_PATIENCE_SECONDS = 12.0  # longer than the collector's deadline, so that it is the collector that says what it knows
_SENT_AGAIN = 0.7  # share of open or unsent requests that are tried again: what becomes of the others is to be judged, too
_MOST_ATTEMPTS = 6
_WORKERS = 16  # requests under way at most
_TOO_MANY_EVENTS = 501
_METHOD = "/headrace.collector.v1.Collector/Publish"
_MANY = "application/cloudevents-batch+json"

_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
}


@dataclass
class Tally:
    """What was sent so far, in events. `acks` are the moments (time.time) of successes, the last thousands of them."""

    events: Counter[Outcome] = field(default_factory=Counter)
    acks: deque[float] = field(default_factory=lambda: deque(maxlen=50_000))

    @property
    def offered(self) -> int:
        """All sendings."""
        return self.events.total()

    def acked_after(self, since: float) -> float | None:
        """The first success at or after that moment, as far as the last thousands are known."""
        moments = list(self.acks)
        return next((moment for moment in moments if moment >= since), None)


Answer = tuple[Outcome, int]
Publish = grpc.aio.UnaryUnaryMultiCallable[bytes, PublishReply]


class Senders:
    """Sends what `factory` makes until told to stop. `rest` is a URL, `target` gRPC's host:port, `rate` events a second."""

    def __init__(self, ledger: Ledger, factory: Factory, *, rest: str, target: str, key: str, rate: float, seed: int) -> None:
        self._ledger = ledger
        self._factory = factory
        self._rest = f"{rest}/v1/events"
        self._target = target
        self._key = key
        self._rate = rate
        self._random = random.Random(seed)
        self._next = 0
        self._again: list[tuple[float, int, Request]] = []  # when, attempt, what
        self.tally = Tally()

    async def run(self, done: Callable[[], bool]) -> None:
        """Until `done`; what is under way then is awaited."""
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
        limits = httpx.Limits(max_connections=_WORKERS)
        async with (
            httpx.AsyncClient(timeout=_PATIENCE_SECONDS, limits=limits, trust_env=False) as http,
            grpc.aio.insecure_channel(self._target, options) as channel,
        ):
            publish: Publish = channel.unary_unary(_METHOD, request_serializer=None, response_deserializer=PublishReply.FromString)
            room = asyncio.Semaphore(_WORKERS)
            async with asyncio.TaskGroup() as tasks:
                began, sent = time.monotonic(), 0
                while not done():
                    attempt, request = self._due()
                    sent += len(request.events)
                    await room.acquire()
                    began = max(began, time.monotonic() - sent / self._rate - 1)  # what an outage kept back is not sent in a burst
                    await asyncio.sleep(max(0.0, began + sent / self._rate - time.monotonic()))
                    tasks.create_task(self._one(request, attempt, http, publish)).add_done_callback(lambda _: room.release())

    def _due(self) -> tuple[int, Request]:
        now = time.monotonic()
        for place, (when, attempt, request) in enumerate(self._again):
            if when <= now:
                del self._again[place]
                return attempt, request
        return 1, self._factory.request()

    async def _one(self, request: Request, attempt: int, http: httpx.AsyncClient, publish: Publish) -> None:
        number = self._next
        self._next += 1
        events = [Sent(e.id, e.type, e.kind, e.detail, e.payload_sha256(), e.search_sha256()) for e in request.events]
        await self._ledger.intend(Intent(number, time.time(), request.protocol, attempt, events))
        outcome, status = await (self._by_rest(request, http) if request.protocol is Protocol.REST else self._by_grpc(request, publish))
        now = time.time()
        self._ledger.result(Result(number, now, outcome, status))
        self.tally.events[outcome] += len(events)
        if outcome is Outcome.OK:
            self.tally.acks.append(now)
            self._factory.acknowledged(request)
        elif (status == 0 or status >= 500) and attempt < _MOST_ATTEMPTS and self._random.random() < _SENT_AGAIN:
            self._again.append((time.monotonic() + self._random.uniform(0.2, 2), attempt + 1, request))

    async def _by_rest(self, request: Request, http: httpx.AsyncClient) -> Answer:
        body, key, media_type = request.body(), self._key, _MANY
        match request.refusal:
            case 401:
                key = "no-such-key"
            case 413:
                body = b"[" + b",".join([request.events[0].text] * _TOO_MANY_EVENTS) + b"]"
            case 415:
                media_type = "text/csv"
        if request.events[0].kind is Kind.UNPARSEABLE:
            media_type = "application/cloudevents+json"
        try:
            answer = await http.post(self._rest, content=body, headers={"content-type": media_type}, auth=(key, ""))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            return Outcome.FAIL, 0  # not a byte of it was sent
        except httpx.HTTPError:
            return Outcome.INFO, 0
        return _outcome(answer.status_code)

    async def _by_grpc(self, request: Request, publish: Publish) -> Answer:
        key = "no-such-key" if request.refusal else self._key
        try:
            await publish(request.body(), metadata=(("authorization", f"Bearer {key}"),), timeout=_PATIENCE_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _outcome(_STATUS.get(error.code(), 503))
        return Outcome.OK, 200


def _outcome(status: int) -> Answer:
    if status == 200:
        return Outcome.OK, status
    return (Outcome.FAIL if 400 <= status < 500 else Outcome.INFO), status
