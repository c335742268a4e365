"""From the bytes of an export request to events. Pure.

A record that names an event type of the tracking plan is an event of that type, any other one of type `log`. One bad record spoils no
other: a request is first cut into records, and each is read by itself.
"""

import hashlib
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import orjson

from collector.accept import Limits, SentEvent, Unreadable
from collector.inflate import TooLong
from collector.otlp import JSON, PROTOBUF, binary, text
from collector.otlp.record import Record
from collector.reading import Texts
from headrace.dead_letter import Invalid, Reason
from headrace.registry import Registry

TYPE = "log"  # of a record that names no type of the plan

_SDK_BATCH = 512  # what an SDK sends at once unless it is told otherwise: OpenTelemetry's BatchLogRecordProcessor, maxExportBatchSize
_SERVICE = "service.name"
_NAMELESS = "unknown_service"  # what OpenTelemetry calls a resource without service.name
_NAME, _UID = "event.name", "log.record.uid"
_SUBJECTS = ("user.id", "enduser.id")

_ENCODINGS = {PROTOBUF: binary, JSON: text}


class _Origin(NamedTuple):
    """Where records come from: the resource, the scope, and both as JSON."""

    resource: dict[str, Any]
    scope: dict[str, Any]
    said: bytes


def read(
    body: bytes, media_type: str, registry: Registry, limits: Limits, most: int = sys.maxsize
) -> tuple[list[SentEvent | Unreadable], Texts]:
    """The events of an export request, and a function for the bytes of each: a request that holds that record alone.

    Raises Invalid (UNPARSEABLE or MALFORMED) where `body` is no such request, TooMany where it holds too many records, TooLong where they
    have more than `most` bytes, each with its resource and scope: that is what they cost, however small `body` is.
    """
    encoding = _ENCODINGS[media_type]
    cuts = encoding.cut(body, msgspec.structs.replace(limits, events=max(limits.events, _SDK_BATCH)))

    if sum(len(part) for of in cuts for part in of) > most:
        raise TooLong(f"the log records have more than {most} bytes, each with its resource and scope")

    @lru_cache(maxsize=2)
    def origin(resource: bytes, scope: bytes) -> _Origin:
        about = encoding.resource(resource)
        name, version, attributes = encoding.scope(scope)
        of = _set({"name": name, "version": version, "attributes": attributes})
        return _Origin(about, of, _json([about, of]))

    sent: list[SentEvent | Unreadable] = []
    seen: Counter[str] = Counter()
    for of in cuts:
        size = sum(map(len, of))
        try:
            if size > limits.event_bytes:
                raise _too_large(f"the log record with its resource and scope has {size} bytes", limits)
            event = _event(encoding.record(of.record), origin(of.resource, of.scope), registry, seen)
        except Invalid as problem:
            sent.append(Unreadable(problem))
            continue
        if len(event.data) > limits.event_bytes:
            sent.append(Unreadable(_too_large(f"data has {len(event.data)} bytes as JSON", limits), event))
        else:
            sent.append(event)
    return sent, lambda: [encoding.alone(of) for of in cuts]


def _event(record: Record, origin: _Origin, registry: Registry, seen: Counter[str]) -> SentEvent:
    """The event of a record; `seen` counts the ids that were made up for others of the same request."""
    attributes, body = dict(record.attributes), record.body
    name = record.event_name or _taken_text(attributes, _NAME) or ""
    uid = _taken_text(attributes, _UID)
    subjects = [_taken_text(attributes, one) for one in _SUBJECTS]
    type = registry.type_named(name)
    if type is None:
        data = _log(record, name, attributes, origin)
    elif isinstance(body, dict):
        data = attributes | body
    else:
        data = attributes if body is None else {"body": body} | attributes
    moment = record.time or record.observed_time
    service = origin.resource.get(_SERVICE)
    event = SentEvent(
        source=service if isinstance(service, str) and service else _NAMELESS,
        type=type or TYPE,
        time=_rfc3339(moment) if moment else None,
        subject=next(filter(None, subjects), None),
        data=msgspec.Raw(_json(data)),
    )
    event.id = uid or _made_up(event, record, origin, seen)
    return event


def _log(record: Record, name: str, attributes: dict[str, Any], origin: _Origin) -> dict[str, Any]:
    """Data of an event of type `log`; what is not set is absent, and a body that is no text is JSON text."""
    body = record.body
    return _set(
        {
            "event_name": name,
            "severity_number": record.severity_number,
            "severity_text": record.severity_text,
            "body": body if body is None or isinstance(body, str) else _json(body).decode(),
            "trace_id": _hex(record.trace_id, 16),
            "span_id": _hex(record.span_id, 8),
            "attributes": attributes,
            "scope": origin.scope,
            "resource": origin.resource,
        }
    )


def _made_up(event: SentEvent, record: Record, origin: _Origin, seen: Counter[str]) -> str:
    """An id made of all that a record says, so that a repetition has it too, in either encoding.

    Records of one request that say the very same are still several: all but the first get a number.
    """
    ids = record.trace_id.hex(), record.span_id.hex()
    said = _json([event.type, event.subject, record.time, record.observed_time, record.severity_number, record.severity_text, *ids])
    id = hashlib.sha256(b"\n".join((said, origin.said, bytes(event.data)))).hexdigest()[:32]
    seen[id] += 1
    return id if seen[id] == 1 else f"{id}-{seen[id]}"


def _taken_text(attributes: dict[str, Any], name: str) -> str | None:
    """Takes a text out of the attributes; what is no text, or an empty one, stays there."""
    value = attributes.get(name)
    return attributes.pop(name) if isinstance(value, str) and value else None


def _set(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, "", 0, {})}


def _hex(id: bytes, length: int) -> str | None:
    """An id of `length` bytes; OpenTelemetry says that any other, and one of zeros alone, counts as absent."""
    return id.hex() if len(id) == length and any(id) else None


def _rfc3339(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat().replace("+00:00", "Z")


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:  # orjson takes no more than 254 levels
        raise Invalid(Reason.MALFORMED, f"the log record cannot be written as JSON: {error}") from None


def _too_large(what: str, limits: Limits) -> Invalid:
    return Invalid(Reason.TOO_LARGE, f"{what}: at most {limits.event_bytes} are allowed")
