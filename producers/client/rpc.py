"""Requests over gRPC: one stream, on which several requests are under way and the replies come in order."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import grpc
from msgspec import UNSET

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from producers.client.events import read_event
from producers.client.policy import Rejected, Reply, RequestRefused, seconds_of

# gRPC's codes as HTTP statuses (as google.rpc.Code maps them), so that one table says what to do. What is not here is 503: tried again.
_STATUS = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNIMPLEMENTED: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
}
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),  # the engine waits too
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
)

_Call = tuple[pb.PublishRequest, "asyncio.Future[Reply]"]


class Rpc:
    """Sends to the collector at `target` (host:port). `timeout` is in seconds, for one reply."""

    def __init__(self, target: str, write_key: str, *, timeout: float, user_agent: str, tls: grpc.ChannelCredentials | None) -> None:
        options = (*_OPTIONS, ("grpc.primary_user_agent", user_agent))
        self._channel = grpc.aio.secure_channel(target, tls, options) if tls else grpc.aio.insecure_channel(target, options)
        self._publish = CollectorStub(self._channel).PublishStream
        self._metadata = (("authorization", f"Bearer {write_key}"),)
        self._target, self._timeout = target, timeout
        self._stream: _Stream | None = None

    async def send(self, texts: Sequence[bytes]) -> Reply:
        """Returns once the events are durable. Raises RequestRefused."""
        request = pb.PublishRequest(events=map(_message, texts))
        if self._stream is None:  # one that has ended stays, so that nothing overtakes what failed on it
            self._stream = _Stream(self._publish, self._metadata)
        answer = self._stream.put(request)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise RequestRefused(0, "no_answer", f"no answer from {self._target} within {self._timeout} s") from None

    async def reset(self) -> None:
        """End the stream."""
        if self._stream is not None:
            await self._stream.end()
            self._stream = None

    async def close(self) -> None:
        """Close the connection."""
        await self.reset()
        await self._channel.close()


class _Stream:
    """One call of PublishStream."""

    def __init__(self, publish: object, metadata: tuple[tuple[str, str], ...]) -> None:
        self._requests: asyncio.Queue[pb.PublishRequest | None] = asyncio.Queue()
        self._answers: deque[asyncio.Future[Reply]] = deque()
        self._problem: RequestRefused | None = None  # why it ended
        self._call = publish(self._queued(), metadata=metadata)  # type: ignore[operator]  # the generated stub has no types
        self._reader = asyncio.create_task(self._read())

    def put(self, request: pb.PublishRequest) -> "asyncio.Future[Reply]":
        """Send `request`, and give what will be its reply."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._problem:
            answer.set_exception(self._problem)
        else:
            self._answers.append(answer)
            self._requests.put_nowait(request)
        return answer

    async def end(self) -> None:
        """Stop, whatever is under way."""
        self._call.cancel()
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _queued(self) -> AsyncIterator[pb.PublishRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _read(self) -> None:
        problem = RequestRefused(503, "closed", "the collector ended the stream")
        try:
            async for reply in self._call:
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_result(_reply(reply))
        except grpc.aio.AioRpcError as error:
            problem = _refusal(error)
        finally:
            self._problem = problem
            self._requests.put_nowait(None)
            for answer in self._answers:
                if not answer.done():
                    answer.set_exception(problem)
                    answer.exception()  # one that nobody waits for any more is no mistake


def _message(text: bytes) -> pb.Event:
    event = read_event(text)
    return pb.Event(
        id=event.id,
        source=event.source,
        type=event.type,
        time=event.time,
        subject="" if event.subject is UNSET else event.subject,
        dataschema="" if event.dataschema is UNSET else event.dataschema,
        json=bytes(event.data),
    )


def _reply(reply: pb.PublishReply) -> Reply:
    return Reply(reply.accepted, [Rejected(one.index, one.reason, one.detail, one.id or None) for one in reply.rejected])


def _refusal(error: grpc.aio.AioRpcError) -> RequestRefused:
    code, details = error.code(), error.details() or "no details"
    status = 413 if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details else _STATUS.get(code, 503)
    said = {str(name): str(value) for name, value in error.trailing_metadata() or ()}
    pushback = said.get("grpc-retry-pushback-ms", "")
    wait = float(pushback) / 1000 if pushback.isdigit() else seconds_of(said.get("retry-after"))
    return RequestRefused(status, code.name.lower(), details, wait)
