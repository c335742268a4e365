"""Kafka as the collector uses it: a request's messages go in, and it is answered once all of them are acknowledged.

A report for each message would cost more than all the rest, so only the last message of a request in each partition asks for one. It stands
for those before it because

- the partition is chosen here and a producer keeps the order within a partition,
- messages never time out in the client (`delivery.timeout.ms` 0), so none can be dropped ahead of a later one, and
- an idempotent producer's later messages cannot be written once one is lost: the broker refuses the gap in the sequence, and
  `enable.gapless.guarantee` makes such a loss a fatal error.

After any reported failure the line (`line`: the producer) is given up with everything it holds: its requests are answered Unavailable, and
a new one is made.
A request that waited for the deadline is answered Unavailable too; its messages may still arrive, as a repetition may.

With a spool, what would be Unavailable goes to disk instead: at once where Kafka is known to be down or the spool holds older messages, and
after a share of the deadline where Kafka is silent. In the latter case it may stand in Kafka twice.
"""

import asyncio
import math
import os
import time
from collections.abc import Sequence
from functools import partial

import structlog

from collector import metrics
from collector.line import DEAD_LETTER_TOPIC, Keyed, Line, PythonLine, Tell, Waiting, size_of
from collector.spool import SEND_BYTES, Messages, Spool
from collector.spool_files import Item
from headrace import event, kafka
from headrace.dead_letter import Unavailable

_MAX_MESSAGES = 2_000_000  # never reached: `max_bytes` bounds the queue first
_POLL_EVERY = 0.001  # seconds between two looks at the reports while something is in flight
_LOOK_EVERY = 0.05  # seconds between two looks at the deadlines where the client says itself that there are reports
_PROBE_EVERY = 1.0  # seconds between two looks at whether Kafka is there
SHARE = 0.2  # of the deadline that Kafka gets before the spool is used

_log = structlog.get_logger()


class Outbox:
    """The way to Kafka. A request needs only `put`; `run` must run beside it."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        deadline: float,
        max_bytes: int,
        security: kafka.Security = kafka.PLAINTEXT,
        spool: Spool | None = None,
        compression: str = "lz4",
        linger_ms: float = 2,
        line: type[Line] = PythonLine,
    ) -> None:
        """`deadline`: seconds that a request may wait for Kafka. `max_bytes`: bound on what waits for acknowledgement.

        `line`: the client to use.
        """
        self._config = kafka.producer_config(
            bootstrap_servers,
            security=security,
            delivery_timeout_ms=0,
            enable_gapless_guarantee=True,
            linger_ms=linger_ms,
            compression_type=compression,
            queue_buffering_max_messages=_MAX_MESSAGES,
            queue_buffering_max_kbytes=2 * (max_bytes + SEND_BYTES) // 1024,
            reconnect_backoff_max_ms=1000,
        )
        self._deadline = deadline if spool is None else deadline * SHARE
        self._max_bytes = max_bytes
        self._spool = spool
        self._new_line = line
        self._line: Line | None = None
        self._problem: str | None = "the collector is not connected to Kafka yet"
        self.looked = asyncio.Event()
        """Set once it is known whether Kafka is there, which takes some seconds at most."""
        self._ticking = False
        self._disposals: set[asyncio.Future[None]] = set()

    @property
    def problem(self) -> str | None:
        """Why no events can be taken now, or None where they can."""
        if self._spool and self.spooling:
            return self._spool.problem
        if self._problem is None and self._line and self._line.bytes >= self._max_bytes:
            return "too much waits for Kafka"
        return self._problem

    @property
    def spooling(self) -> bool:
        """Whether events go to the spool's disk now."""
        return self._spool is not None and (self._problem is not None or self._spool.holds)

    async def put(self, raw: Sequence[Keyed], letters: Sequence[Keyed]) -> None:
        """Write events and dead letters.

        Returns once Kafka acknowledged all, or the spool has all on disk; raises Unavailable, within the deadline, where neither came true.
        """
        if not raw and not letters:
            return
        messages = [(topic, keyed) for topic, keyed in ((event.RAW_TOPIC, raw), (DEAD_LETTER_TOPIC, letters)) if keyed]
        size = sum(size_of(keyed) for _, keyed in messages)
        spool = self._spool
        if spool is None:
            await self._write(messages, size, self._deadline)
        elif not self.spooling or not await spool.put(messages, size, willing=True):
            try:
                await self._write(messages, size, self._deadline)
            except Unavailable:
                await spool.put(messages, size, willing=False)

    async def send(self, items: Sequence[Item]) -> None:
        """Write messages of the spool. Waits for Kafka without a deadline; raises Unavailable where the producer was given up meanwhile."""
        messages: dict[str, list[Keyed]] = {}
        for item in items:
            messages.setdefault(item.topic, []).append((item.key, item.value))
        await self._write(list(messages.items()), 0, math.inf)

    def takes(self, raw: Sequence[Keyed]) -> bool:
        """Whether `begin` may be called with `raw` now. Where it may not, `put` knows what to do."""
        line = self._line
        return self._spool is None and line is not None and line.bytes + size_of(raw) <= self._max_bytes

    def begin(self, raw: Sequence[Keyed], tell: Tell) -> None:
        """Write events as `put` does, and `tell` what came of it, by a call that must not raise."""
        if self._line is None:
            tell(Unavailable(self._problem or "the collector is not connected to Kafka"))
            return
        end = time.monotonic() + self._deadline
        self._hand_over(self._line, [(event.RAW_TOPIC, raw)], Waiting(tell, end, size_of(raw)))

    async def _write(self, messages: Messages, size: int, deadline: float) -> None:
        """`size`: what it counts of the bytes that may wait."""
        line = self._line
        if line is None:
            raise Unavailable(self._problem or "the collector is not connected to Kafka")
        if line.bytes + size > self._max_bytes:
            raise Unavailable("too much waits for Kafka")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        request = Waiting(partial(_settle, done), time.monotonic() + deadline, size)
        self._hand_over(line, messages, request)
        try:
            await done
        finally:
            request.tell = None  # an exception in it would hold the frames, and so the messages, of all its callers

    def _hand_over(self, line: Line, messages: Messages, request: Waiting) -> None:
        line.bytes += request.bytes
        line.waiting.append(request)
        try:
            for topic, keyed in messages:
                line.produce(topic, keyed, request)
        except Unavailable:
            self._give_up(line)
        if not self._ticking:
            self._ticking = True
            self._tick_later()

    async def run(self) -> None:
        """Keep a line open and know whether Kafka is there, until cancelled."""
        while True:
            line = self._line or self._new_line(self._config)
            problem = await asyncio.to_thread(line.probe)
            problem = line.broken or problem  # it may have been given up meanwhile
            if problem and line is self._line and await self._is_cut_off(line):
                line.broken = problem
                self._give_up(line)
                continue
            if self._line is None:
                if problem is None:
                    self._adopt(line)
                else:
                    self._dispose(line)
            if problem != self._problem:
                _log.info("kafka can take events") if problem is None else _log.warning("kafka cannot take events", why=problem)
            self._problem = problem
            metrics.KAFKA_UP.set(problem is None)
            metrics.IN_FLIGHT_BYTES.set(self._line.bytes if self._line else 0)
            self._serve()
            self.looked.set()
            await asyncio.sleep(_PROBE_EVERY)

    async def _is_cut_off(self, line: Line) -> bool:
        """Whether it is `line` and not Kafka that is away: librdkafka can lose all brokers for good (docs/decisions/0023)."""
        other = self._new_line(self._config)
        there = await asyncio.to_thread(other.probe) is None
        self._dispose(other)
        return there and await asyncio.to_thread(line.probe) is not None

    async def close(self) -> None:
        """Give what is still in the client a last chance. Call after the last request was answered."""
        if self._line:
            await asyncio.to_thread(self._line.flush, 5)

    def _tick(self) -> None:
        self._serve()
        self._ticking = self._line is not None and bool(self._line.waiting)
        if self._ticking:
            self._tick_later()

    def _tick_later(self) -> None:
        polls = self._line is None or self._line.bell is None
        asyncio.get_running_loop().call_later(_POLL_EVERY if polls else _LOOK_EVERY, self._tick)

    def _rung(self, bell: int) -> None:
        os.eventfd_read(bell)
        self._serve()

    def _serve(self) -> None:
        """Take the client's reports, and answer the requests whose deadline has come."""
        line = self._line
        if line is None:
            return
        line.poll()
        if line.broken:
            self._give_up(line)
            return
        now = time.monotonic()
        while line.waiting and (not line.waiting[0].waits or line.waiting[0].expires <= now):
            line.waiting.popleft().answer(Unavailable("Kafka did not acknowledge in time"))

    def _adopt(self, line: Line) -> None:
        self._line = line
        if line.bell is not None:
            asyncio.get_running_loop().add_reader(line.bell, self._rung, line.bell)

    def _give_up(self, line: Line) -> None:
        if line is not self._line:
            return
        self._line = None
        if line.bell is not None:
            asyncio.get_running_loop().remove_reader(line.bell)
        self._problem = line.broken or "the connection to Kafka broke"
        _log.error("kafka producer given up", why=self._problem)
        line.abandon(self._problem)
        self._dispose(line)

    def _dispose(self, line: Line) -> None:
        disposal = asyncio.ensure_future(asyncio.to_thread(line.dispose))
        self._disposals.add(disposal)
        disposal.add_done_callback(self._disposals.discard)


def _settle(done: asyncio.Future[None], problem: Unavailable | None) -> None:
    if done.done():  # nobody waits for it any more
        return
    if problem is None:
        done.set_result(None)
    else:
        done.set_exception(problem)
