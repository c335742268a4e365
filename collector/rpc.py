"""The collector over gRPC: a thin servicer, from a request to `Intake` and back."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import msgspec
import structlog
from google.protobuf.message import DecodeError

from collector import metrics
from collector.accept import Outcome, Sending, SentEvent, TooMany, Unreadable, accept
from collector.http2.calls import Caller, Code, Method, Place, Refusal
from collector.intake import Intake, Taken
from collector.quota import OverQuota
from collector.reading import check_count
from collector.senders import Key, write_key_of
from collector.v1 import collector_pb2 as pb
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.protobuf import Messages

SERVICE = "headrace.collector.v1.Collector"

_RETRY_AFTER = (("retry-after", "2"),)
_UNKNOWN = Refusal(Code.UNAUTHENTICATED, "no known write key: send it as metadata `authorization: Bearer <write key>`")

_log = structlog.get_logger()


class _Sender(NamedTuple):
    """What follows from a caller's metadata, as long as the write keys do not change."""

    keys_of: int  # Senders.changes
    key: Key | None
    agent: str | None


class Rpc:
    """The methods of `headrace.collector.v1.Collector`."""

    def __init__(self, intake: Intake, messages: Messages) -> None:
        self._intake = intake
        self._messages = messages

    @property
    def methods(self) -> dict[str, Method]:
        """Its methods by their paths: one batch, or batch after batch."""
        return {
            f"/{SERVICE}/Publish": Method(self.publish, refuses=self._refuses),
            f"/{SERVICE}/PublishStream": Method(self.publish, streams=True, refuses=self._refuses),
        }

    def publish(self, body: bytes, caller: Caller, place: Place) -> None:
        """Take one batch. Where all its events are surely good, no task waits for Kafka."""
        started = time.perf_counter()
        intake, sender = self._intake, self._sender(caller)
        if sender.key is None:  # it may be revoked while a stream is open
            self._told(place, started, _UNKNOWN)
            return
        sending = intake.sending("grpc", sender.key, caller.address, sender.agent, "grpc")
        outcome = intake.fast.protobuf(body, self._event, sending) if intake.fast else None
        if outcome is None or not intake.begins(outcome):
            answer = self._answer(body, outcome, sender.key, sending)
            task = asyncio.get_running_loop().create_task(self._answered(answer, place, started))
            place.stop = task.cancel  # which also holds it
            return
        count = len(outcome.messages)
        try:
            intake.charge(sender.key, count, len(body))
        except OverQuota as over:
            self._told(place, started, _refusal(over))
        else:
            intake.begin(outcome.messages, "grpc", partial(self._written, place, started, count))

    def _written(self, place: Place, started: float, count: int, problem: Unavailable | None) -> None:
        self._told(place, started, _accepted(count) if problem is None else _refusal(problem))

    async def _answered(self, answer: Coroutine[Any, Any, bytes | Refusal], place: Place, started: float) -> None:
        self._told(place, started, await answer)

    async def _answer(self, body: bytes, outcome: Outcome | None, key: Key, sending: Sending) -> bytes | Refusal:
        try:
            return _reply(await self._taken(body, outcome, key, sending))
        except Exception as problem:
            return _refusal(problem)

    async def _taken(self, body: bytes, outcome: Outcome | None, key: Key, sending: Sending) -> Taken:
        """Raises Invalid where `body` is no PublishRequest; its bytes are a dead letter then."""
        try:
            outcome = outcome or self._ordinary(body, sending)
        except Invalid as problem:
            self._intake.charge(key, 1, len(body))
            await self._intake.refuse_body(problem, body, sending)
            raise
        self._intake.charge(key, len(outcome.messages) + len(outcome.rejected), len(body))
        return await self._intake.take(outcome, sending)

    def _told(self, place: Place, started: float, answer: bytes | Refusal) -> None:
        metrics.answered("grpc", answer.code.name if isinstance(answer, Refusal) else "OK", time.perf_counter() - started)
        place(answer)

    def _refuses(self, caller: Caller) -> Refusal | None:
        """At once, and not only with the first batch."""
        if self._sender(caller).key is not None:
            return None
        metrics.answered("grpc", _UNKNOWN.code.name)
        return _UNKNOWN

    def _sender(self, caller: Caller) -> _Sender:
        sender: _Sender | None = caller.note
        if sender is None or sender.keys_of != self._intake.senders.changes:
            authorization, agent = (_text(caller.metadata.get(name)) for name in (b"authorization", b"user-agent"))
            senders = self._intake.senders
            key = senders.known(write_key_of(authorization)) if authorization else None
            sender = caller.note = _Sender(senders.changes, key, agent)
        return sender

    def _ordinary(self, body: bytes, sending: Sending) -> Outcome:
        try:
            events: Sequence[pb.Event] = pb.PublishRequest.FromString(body).events
        except DecodeError:
            raise Invalid(Reason.UNPARSEABLE, "the request is not a headrace.collector.v1.PublishRequest") from None
        check_count(len(events), sending.limits)
        sent = [event_of(one, sending.limits.event_bytes, self._messages) for one in events]
        return accept(sent, lambda: [one.SerializeToString() for one in events], sending)

    def _event(self, text: bytes) -> SentEvent | Unreadable:
        return event_of(pb.Event.FromString(text), self._intake.limits.event_bytes, self._messages)


def _refusal(problem: Exception) -> Refusal:
    match problem:
        case Invalid():
            return Refusal(Code.INVALID_ARGUMENT, problem.detail)
        case TooMany():
            return Refusal(Code.INVALID_ARGUMENT, str(problem))
        case OverQuota():
            return Refusal(Code.RESOURCE_EXHAUSTED, str(problem), (("retry-after", str(problem.retry_after)),))
        case Unavailable():
            return Refusal(Code.UNAVAILABLE, f"{problem}: send it again", _RETRY_AFTER)
    _log.error("a request could not be served", protocol="grpc", exc_info=problem)
    return Refusal(Code.INTERNAL, "the collector failed: send it again")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def event_of(one: pb.Event, max_bytes: int, messages: Messages) -> SentEvent | Unreadable:
    """What a message of gRPC says, or why it cannot be read."""
    event = SentEvent(
        id=one.id,
        source=one.source,
        type=one.type,
        time=one.time or None,
        subject=one.subject or None,
        dataschema=one.dataschema or None,
    )
    if one.ByteSize() > max_bytes:
        return Unreadable(Invalid(Reason.TOO_LARGE, f"the event has {one.ByteSize()} bytes: at most {max_bytes} are allowed"), event)
    if one.WhichOneof("data") == "message":
        return _of_message(event, one, max_bytes, messages)
    event.data = msgspec.Raw(one.json.strip())
    return event


def _of_message(event: SentEvent, one: pb.Event, max_bytes: int, messages: Messages) -> SentEvent | Unreadable:
    """`event` with the message of `one` as its data. Its schema is that of the message, which must not say otherwise."""
    try:
        ref, data = messages.read(one.message.type_url, one.message.value)
    except Invalid as problem:
        return Unreadable(problem, event)
    if event.dataschema not in (None, ref):
        return Unreadable(Invalid(Reason.INVALID_ATTRIBUTE, f"dataschema is {event.dataschema[:100]!r}, the message is of {ref}"), event)
    if len(data) > max_bytes:
        return Unreadable(Invalid(Reason.TOO_LARGE, f"data has {len(data)} bytes as JSON: at most {max_bytes} are allowed"), event)
    event.dataschema, event.data = ref, msgspec.Raw(data)
    return event


@lru_cache(maxsize=1024)
def _accepted(count: int) -> bytes:
    return pb.PublishReply(accepted=count).SerializeToString()


def _reply(taken: Taken) -> bytes:
    if not taken.rejected:
        return _accepted(taken.accepted)
    rejected = [
        pb.Rejected(index=one.index, id=one.letter.id or "", reason=one.letter.reason, detail=one.letter.detail) for one in taken.rejected
    ]
    return pb.PublishReply(accepted=taken.accepted, rejected=rejected).SerializeToString()
