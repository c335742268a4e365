"""What every server of gRPC offers: grpc.health.v1.Health, and grpc.reflection in both its versions."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from collector.http2.calls import Caller, Code, Method, Place, Refusal
from headrace.protobuf import Messages

HEALTH = "grpc.health.v1.Health"
_ALPHA, _STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_STATES = health_pb2.HealthCheckResponse


class Health:
    """Whether services can be used. Each `name` is a service, and "" stands for all."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {"": _STATES.SERVING}
        self._watchers: dict[Place, tuple[str, int]] = {}  # what each asks for, and was told last
        self._stopped = False

    @property
    def methods(self) -> dict[str, Method]:
        """Its methods by their paths."""
        return {f"/{HEALTH}/Check": Method(self.check), f"/{HEALTH}/Watch": Method(self.watch)}

    def set(self, name: str, *, serving: bool) -> None:
        """Say how it is, and tell who watches where that is new. Once stopped, nothing serves."""
        state = _STATES.SERVING if serving and not self._stopped else _STATES.NOT_SERVING
        self._states[name] = state
        for place, (of, told) in list(self._watchers.items()):
            if of == name and told != state:
                self._watchers[place] = name, state
                place.more(_state(state))

    def stop(self) -> None:
        """Nothing serves any more; who watches is told, and sent away."""
        self._stopped = True
        for name in self._states:
            self.set(name, serving=False)
        watchers, self._watchers = self._watchers, {}
        for place in watchers:
            place(_STOPS)

    def check(self, message: bytes, _: Caller, place: Place) -> None:
        name = _name(message)
        if name is None:
            place(_UNREADABLE)
        elif name not in self._states:
            place(Refusal(Code.NOT_FOUND, "no such service"))
        else:
            place(_state(self._states[name]))

    def watch(self, message: bytes, _: Caller, place: Place) -> None:
        name = _name(message)
        if name is None:
            place(_UNREADABLE)
            return
        state = self._states.get(name, _STATES.SERVICE_UNKNOWN)
        place.more(_state(state))
        if self._stopped:
            place(_STOPS)
            return
        self._watchers[place] = name, state
        place.stop = lambda: self._watchers.pop(place, None)


_STOPS = Refusal(Code.UNAVAILABLE, "the server stops: ask again")
_UNREADABLE = Refusal(Code.INVALID_ARGUMENT, "the request cannot be read")


def _name(message: bytes) -> str | None:
    try:
        return str(health_pb2.HealthCheckRequest.FromString(message).service)
    except DecodeError:
        return None


def _state(state: int) -> bytes:
    return health_pb2.HealthCheckResponse(status=state).SerializeToString()


class Reflection:
    """The methods of `services`, and all messages of `messages`, for tools that know an address only."""

    def __init__(self, services: Iterable[str], messages: Messages) -> None:
        messages.serve(health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
        messages.pool.AddSerializedFile(_stable().SerializeToString())
        names = (*services, HEALTH, f"{_ALPHA}.ServerReflection", f"{_STABLE}.ServerReflection")
        self._servicer = reflection.aio.ReflectionServicer(names, messages.pool)

    @property
    def methods(self) -> dict[str, Method]:
        """Its methods by their paths: the messages of both versions are the same."""
        return {f"/{version}.ServerReflection/ServerReflectionInfo": Method(self.ask, streams=True) for version in (_ALPHA, _STABLE)}

    def ask(self, message: bytes, _: Caller, place: Place) -> None:
        try:
            request = reflection_pb2.ServerReflectionRequest.FromString(message)
        except DecodeError:
            place(_UNREADABLE)
            return
        task = asyncio.get_running_loop().create_task(self._answered(request, place))
        place.stop = task.cancel

    async def _answered(self, request: Any, place: Place) -> None:
        async def one() -> AsyncIterator[Any]:
            yield request

        answers: Any = self._servicer.ServerReflectionInfo(one(), None)
        async for answer in answers:
            place(answer.SerializeToString())


def _stable() -> descriptor_pb2.FileDescriptorProto:
    """The file of version 1, which differs from the alpha version's in its package alone."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = file.name.replace("v1alpha", "v1"), _STABLE
    for field in (field for message in file.message_type for field in message.field):
        if field.HasField("type_name"):
            field.type_name = field.type_name.replace(_ALPHA, _STABLE)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(_ALPHA, _STABLE)
        method.output_type = method.output_type.replace(_ALPHA, _STABLE)
    return file
