"""The collector over gRPC: a thin servicer, from a request to `Intake` and back."""

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import msgspec
import structlog
from google.protobuf.message import DecodeError

from collector import metrics
from collector.accept import Outcome, Sending, SentEvent, TooMany, Unreadable
from collector.intake import Intake, Taken
from collector.reading import check_count
from collector.senders import Key, write_key_of
from collector.v1 import collector_pb2 as pb
from headrace.dead_letter import Invalid, Reason, Unavailable

SERVICE = "headrace.collector.v1.Collector"

_log = structlog.get_logger()

Context = grpc.aio.ServicerContext[Any, Any]


class Rpc:
    """The methods of `headrace.collector.v1.Collector`. They get a request's bytes, which cost half of what the message they hold does."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server needs to know of them."""
        reply = pb.PublishReply.SerializeToString
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Publish": grpc.unary_unary_rpc_method_handler(self.Publish, response_serializer=reply),
            "PublishStream": grpc.stream_stream_rpc_method_handler(self.PublishStream, response_serializer=reply),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def Publish(self, request: bytes, context: Context) -> pb.PublishReply:
        """One batch."""
        return await self._publish(request, context, await self._key(context))

    async def PublishStream(self, request_iterator: AsyncIterator[bytes], context: Context) -> AsyncIterator[pb.PublishReply]:
        """Batch after batch; the next is read once the one before is durable, which is the flow control."""
        key = await self._key(context)
        async for request in request_iterator:
            yield await self._publish(request, context, key)

    async def _key(self, context: Context) -> Key:
        metadata = dict(context.invocation_metadata() or ())
        authorization = metadata.get("authorization", "")
        key = self._intake.senders.known(write_key_of(authorization) if isinstance(authorization, str) else None)
        if key is None:
            await context.abort(
                grpc.StatusCode.UNAUTHENTICATED, "no known write key: send it as metadata `authorization: Bearer <write key>`"
            )
        return key

    async def _publish(self, body: bytes, context: Context, key: Key) -> pb.PublishReply:
        started = time.perf_counter()
        agent = dict(context.invocation_metadata() or ()).get("user-agent")
        sending = self._intake.sending("grpc", key, _address(context.peer()), agent if isinstance(agent, str) else None)
        code, problem = grpc.StatusCode.OK, ""
        try:
            with self._intake.admission.request() as share:  # until the answer: gRPC holds the request that long
                share.take(len(body))
                outcome = self._judged(pb.PublishRequest.FromString(body), sending)
                return _reply(await self._intake.take(outcome, sending))
        except DecodeError:
            code, problem = grpc.StatusCode.INVALID_ARGUMENT, "the message is no headrace.collector.v1.PublishRequest"
        except TooMany as error:
            code, problem = grpc.StatusCode.INVALID_ARGUMENT, str(error)
        except Unavailable as error:
            code, problem = grpc.StatusCode.UNAVAILABLE, f"{error}: send it again"
        except Exception:
            _log.exception("a request could not be served", protocol="grpc")
            code, problem = grpc.StatusCode.INTERNAL, "the collector failed: send it again"
        finally:
            metrics.requests("grpc", code.name).inc()
            metrics.latency("grpc").observe(time.perf_counter() - started)
        await context.abort(code, problem)

    def _judged(self, request: pb.PublishRequest, sending: Sending) -> Outcome:
        check_count(len(request.events), self._intake.limits)
        sent = [_event(one, self._intake.limits.event_bytes) for one in request.events]
        return self._intake.judge(sent, lambda: [one.SerializeToString() for one in request.events], sending)


def _event(one: pb.Event, max_bytes: int) -> SentEvent | Unreadable:
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
    event.data = msgspec.Raw(one.json.strip())
    return event


def _reply(taken: Taken) -> pb.PublishReply:
    rejected = [
        pb.Rejected(index=one.index, id=one.letter.id or "", reason=one.letter.reason, detail=one.letter.detail) for one in taken.rejected
    ]
    return pb.PublishReply(accepted=taken.accepted, rejected=rejected)


def _address(peer: str) -> str | None:
    """The address in gRPC's name of a peer, such as `ipv4:127.0.0.1:40000` or `ipv6:[::1]:40000`."""
    kind, _, rest = peer.partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else None
