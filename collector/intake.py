"""What both protocols do with a request once its events are read: accept, write, count."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import NamedTuple

from collector import metrics
from collector.accept import Limits, Outcome, Rejection, Sending, letter
from collector.admission import Admission
from collector.fast import Fast
from collector.line import Keyed, Tell
from collector.outbox import Outbox
from collector.quota import OverQuota
from collector.senders import Key, Senders
from headrace import dead_letter, event
from headrace.dead_letter import Invalid, Unavailable
from headrace.registry import Registry

_MAX_HEADER = 1000  # characters of a user agent that are looked at, since receipts are cached


class Taken(NamedTuple):
    """What a sender is told: how many events are in `events.raw`, and which are not."""

    accepted: int
    rejected: Sequence[Rejection]


class Intake:
    """The collector without its protocols."""

    def __init__(
        self, registry: Registry, limits: Limits, senders: Senders, outbox: Outbox, admission: Admission, *, fast: Fast | None = None
    ) -> None:
        self.registry = registry
        self.limits = limits
        self.senders = senders
        self.outbox = outbox
        self.admission = admission
        self.fast = fast

    def sending(self, protocol: str, key: Key, address: str | None, user_agent: str | None, way: str | None = None) -> Sending:
        """A request that arrives now, by `way` (see `Sending`)."""
        receipt = self.senders.receipt(protocol, key, address, user_agent and user_agent[:_MAX_HEADER])
        return Sending(receipt, event.now(), self.registry, self.limits, key.only_source, key.types, way)

    @staticmethod
    def charge(key: Key, events: int, size: int) -> None:
        """Count a request of so many events and bytes, after decompression, before anything of it is written. Raises OverQuota."""
        if key.quota is not None:
            try:
                key.quota.take(events, size, time.monotonic())
            except OverQuota:
                metrics.OVER_QUOTA.labels(key.id).inc()
                raise

    def take(self, outcome: Outcome, sending: Sending) -> Awaitable[Taken]:
        """Write what became of the events. Raises Unavailable. Where all is good, it does not hold them while it waits for Kafka."""
        if not self.begins(outcome):
            return self._put(outcome, sending)
        done: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        taken = Taken(len(outcome.messages), ())

        def told(problem: Unavailable | None) -> None:
            if done.done():
                return
            if problem is None:
                done.set_result(taken)
            else:
                done.set_exception(problem)

        self.begin(outcome.messages, sending.receipt.protocol, told)
        return done

    async def _put(self, outcome: Outcome, sending: Sending) -> Taken:
        await self.outbox.put(outcome.messages, [_keyed(rejection) for rejection in outcome.rejected])
        protocol = sending.receipt.protocol
        accepted = len(outcome.messages)
        metrics.accepted(protocol, accepted)
        for rejection in outcome.rejected:
            metrics.rejected(protocol, rejection.letter.reason).inc()
        return Taken(accepted, outcome.rejected)

    def begins(self, outcome: Outcome) -> bool:
        """Whether all of it can be written by `begin` now: events alone, and the outbox takes them."""
        return not outcome.rejected and bool(outcome.messages) and self.outbox.takes(outcome.messages)

    def begin(self, messages: Sequence[Keyed], protocol: str, tell: Tell) -> None:
        """Write accepted events, where the outbox takes them, and `tell` what came of it. Meanwhile nothing here holds them."""
        count = len(messages)

        def told(problem: Unavailable | None) -> None:
            if problem is None:
                metrics.accepted(protocol, count)
            tell(problem)

        self.outbox.begin(messages, told)

    async def refuse_body(self, problem: Invalid, body: bytes, sending: Sending) -> None:
        """Keep the bytes of a request that could not be read. Raises Unavailable."""
        await self.take(Outcome([], [Rejection(0, letter(problem, body, sending))]), sending)


def _keyed(rejection: Rejection) -> tuple[bytes, bytes]:
    return rejection.letter.dead_letter_id.encode(), dead_letter.encode(rejection.letter)
