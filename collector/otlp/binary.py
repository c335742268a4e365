"""OTLP's protobuf encoding. Pure.

A request is cut into records by messages that have bytes where OTLP's have messages: on the wire both are the same. So what a request
costs is known before anything in it is read (an empty record has 2 bytes on the wire, and a hundred in memory).
"""

import base64
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from collector.accept import Limits
from collector.otlp.record import Cut, Record, members
from collector.reading import check_count
from headrace.dead_letter import Invalid, Reason
from headrace.protobuf import number

_Field = descriptor_pb2.FieldDescriptorProto


def _cutter(name: str, inner: str, inner_number: int, outer: str = "") -> Any:
    """A message class with the bytes `inner` many times, and once those of `outer` (field 1)."""
    fields = [_Field(name=inner, number=inner_number, type=_Field.TYPE_BYTES, label=_Field.LABEL_REPEATED)]
    if outer:
        fields.append(_Field(name=outer, number=1, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL))
    message = descriptor_pb2.DescriptorProto(name=name, field=fields)
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="headrace.otlp", syntax="proto3", message_type=[message])
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"headrace.otlp.{name}"))


_Request = _cutter("Request", "resource_logs", 1)
_ResourceLogs = _cutter("ResourceLogs", "scope_logs", 2, "resource")
_ScopeLogs = _cutter("ScopeLogs", "log_records", 2, "scope")


def cut(body: bytes, limits: Limits) -> list[Cut]:
    """The records of an ExportLogsServiceRequest. Raises Invalid(UNPARSEABLE), and TooMany where there are more than allowed."""
    request = _message(_Request, body)
    check_count(len(request.resource_logs), limits)
    resources = [_message(_ResourceLogs, raw) for raw in request.resource_logs]
    check_count(sum(len(one.scope_logs) for one in resources), limits)
    scopes = [(one.resource, _message(_ScopeLogs, raw)) for one in resources for raw in one.scope_logs]
    check_count(sum(len(one.log_records) for _, one in scopes), limits)
    return [Cut(resource, one.scope, record) for resource, one in scopes for record in one.log_records]


def alone(of: Cut) -> bytes:
    """A request that holds this record only."""
    scope = _ScopeLogs(scope=of.scope, log_records=[of.record]).SerializeToString()
    resource = _ResourceLogs(resource=of.resource, scope_logs=[scope]).SerializeToString()
    request: bytes = _Request(resource_logs=[resource]).SerializeToString()
    return request


def record(raw: bytes) -> Record:
    """Raises Invalid (UNPARSEABLE, or MALFORMED for an attribute that comes twice), as do the functions below."""
    of = _message(LogRecord, raw)
    return Record(
        time=of.time_unix_nano,
        observed_time=of.observed_time_unix_nano,
        severity_number=of.severity_number,
        severity_text=of.severity_text,
        event_name=of.event_name,
        trace_id=of.trace_id,
        span_id=of.span_id,
        body=_value(of.body),
        attributes=_members(of.attributes),
    )


def resource(raw: bytes) -> dict[str, Any]:
    """The attributes of a resource."""
    return _members(_message(Resource, raw).attributes)


def scope(raw: bytes) -> tuple[str, str, dict[str, Any]]:
    """Name, version and attributes of a scope."""
    of = _message(InstrumentationScope, raw)
    return of.name, of.version, _members(of.attributes)


def _message(kind: Any, raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        raise Invalid(Reason.UNPARSEABLE, f"this is no protobuf message {kind.DESCRIPTOR.name} of OTLP") from None


def _members(pairs: Any) -> dict[str, Any]:
    return members((pair.key, _value(pair.value)) for pair in pairs)


def _value(of: AnyValue) -> Any:
    kind = of.WhichOneof("value")
    match kind:
        case None:
            return None
        case "double_value":
            return number(of.double_value)
        case "bytes_value":
            return base64.b64encode(of.bytes_value).decode()
        case "array_value":
            return [_value(one) for one in of.array_value.values]
        case "kvlist_value":
            return _members(of.kvlist_value.values)
    return getattr(of, kind)
