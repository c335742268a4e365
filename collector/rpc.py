"""The collector over gRPC: a thin servicer, from a request to `Intake` and back."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, NamedTuple
from urllib.parse import unquote

import grpc
import msgspec
import structlog
from google.protobuf.message import DecodeError

from collector import metrics
from collector.accept import Outcome, Sending, SentEvent, TooMany, Unreadable, accept
from collector.intake import Intake, Taken
from collector.quota import OverQuota
from collector.reading import check_count
from collector.senders import Key, write_key_of
from collector.v1 import collector_pb2 as pb
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.protobuf import Messages

SERVICE = "headrace.collector.v1.Collector"

_log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]

_AHEAD = 8  # batches of a stream that are taken and not answered yet, besides two on their way between


class _Refusal(NamedTuple):
    """How a call ends that is not answered well."""

    code: grpc.StatusCode
    problem: str
    trailer: tuple[tuple[str, str], ...] = ()


_UNKNOWN = _Refusal(grpc.StatusCode.UNAUTHENTICATED, "no known write key: send it as metadata `authorization: Bearer <write key>`")


async def _told(answer: bytes | _Refusal, context: Context) -> bytes:
    if isinstance(answer, _Refusal):
        await context.abort(answer.code, answer.problem, answer.trailer)
    return answer


class Rpc:
    """The methods of `headrace.collector.v1.Collector`. Requests and replies are taken and given as bytes."""

    def __init__(self, intake: Intake, messages: Messages) -> None:
        self._intake = intake
        self._messages = messages

    def handler(self) -> grpc.GenericRpcHandler:
        """For a server: gRPC's own reading of messages is left out, since native code reads most of them."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Publish": grpc.unary_unary_rpc_method_handler(self.publish),
            "PublishStream": grpc.stream_stream_rpc_method_handler(self.publish_stream),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def publish(self, request: bytes, context: Context) -> bytes:
        """One batch."""
        return await _told(await self._publish(request, _Caller(context)), context)

    async def publish_stream(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Batch after batch, answered in their order.

        A few are taken before the first of them is durable; then no more is read, which is the flow control.
        """
        caller = _Caller(context)
        if self._intake.senders.known(caller.write_key) is None:  # at once, and not only with the first batch
            await _told(_UNKNOWN, context)
        taken: asyncio.Queue[asyncio.Task[bytes | _Refusal] | None] = asyncio.Queue(_AHEAD)

        async def take() -> None:
            try:
                async for request in requests:
                    await taken.put(asyncio.create_task(self._publish(request, caller)))
            finally:
                await taken.put(None)

        taking = asyncio.create_task(take())
        try:
            while (one := await taken.get()) is not None:
                yield await _told(await one, context)
            await taking
        finally:
            taking.cancel()
            while not taken.empty():
                if one := taken.get_nowait():
                    one.cancel()

    async def _publish(self, body: bytes, caller: "_Caller") -> "bytes | _Refusal":
        started = time.perf_counter()
        answer: bytes | _Refusal
        key = self._intake.senders.known(caller.write_key)  # a key may be revoked while a stream is open
        if key is None:
            return _UNKNOWN
        sending = self._intake.sending("grpc", key, caller.address, caller.agent, "grpc")
        try:
            with self._intake.admission.request() as share:  # until the answer: gRPC holds the request that long
                share.take(len(body))
                answer = _reply(await self._taken(body, key, sending))
        except Invalid as invalid:
            answer = _Refusal(grpc.StatusCode.INVALID_ARGUMENT, invalid.detail)
        except TooMany as error:
            answer = _Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OverQuota as error:
            answer = _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), (("retry-after", str(error.retry_after)),))
        except Unavailable as error:
            answer = _Refusal(grpc.StatusCode.UNAVAILABLE, f"{error}: send it again")
        except Exception:
            _log.exception("a request could not be served", protocol="grpc")
            answer = _Refusal(grpc.StatusCode.INTERNAL, "the collector failed: send it again")
        metrics.requests("grpc", answer.code.name if isinstance(answer, _Refusal) else "OK").inc()
        metrics.latency("grpc").observe(time.perf_counter() - started)
        return answer

    async def _taken(self, body: bytes, key: Key, sending: Sending) -> Taken:
        """Raises Invalid where `body` is no PublishRequest; its bytes are a dead letter then."""
        try:
            writing = self._begun(body, key, sending)
        except Invalid as problem:
            self._intake.charge(key, 1, len(body))
            await self._intake.refuse_body(problem, body, sending)
            raise
        return await writing

    def _begun(self, body: bytes, key: Key, sending: Sending) -> Awaitable[Taken]:
        fast = self._intake.fast
        outcome = (fast.protobuf(body, self._event, sending) if fast else None) or self._ordinary(body, sending)
        self._intake.charge(key, len(outcome.messages) + len(outcome.rejected), len(body))
        return self._intake.take(outcome, sending)

    def _ordinary(self, body: bytes, sending: Sending) -> Outcome:
        try:
            events = pb.PublishRequest.FromString(body).events
        except DecodeError:
            raise Invalid(Reason.UNPARSEABLE, "the request is not a headrace.collector.v1.PublishRequest") from None
        check_count(len(events), sending.limits)
        sent = [event_of(one, sending.limits.event_bytes, self._messages) for one in events]
        return accept(sent, lambda: [one.SerializeToString() for one in events], sending)

    def _event(self, text: bytes) -> SentEvent | Unreadable:
        return event_of(pb.Event.FromString(text), self._intake.limits.event_bytes, self._messages)


class _Caller:
    """Who calls, as its metadata and its connection say."""

    def __init__(self, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        authorization, agent = metadata.get("authorization", ""), metadata.get("user-agent")
        self.write_key = write_key_of(authorization) if isinstance(authorization, str) else None
        self.agent = agent if isinstance(agent, str) else None
        self.address = _address(context.peer())


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


def _reply(taken: Taken) -> bytes:
    rejected = [
        pb.Rejected(index=one.index, id=one.letter.id or "", reason=one.letter.reason, detail=one.letter.detail) for one in taken.rejected
    ]
    return pb.PublishReply(accepted=taken.accepted, rejected=rejected).SerializeToString()


def _address(peer: str) -> str | None:
    """The address in gRPC's name of a peer, such as `ipv4:127.0.0.1:40000` or `ipv6:%5B::1%5D:40000`."""
    kind, _, rest = peer.partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None
