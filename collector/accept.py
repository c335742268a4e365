"""Which events are accepted: the check of an event's top level, the same for every protocol. Pure.

n events in are n events out, each either a message for `events.raw` or a rejection. What is checked here is presence and form of the
attributes; whether `data` fits its schema is the enricher's question.
"""

import base64
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from collector import jsontext
from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Invalid, Reason
from headrace.registry import Registry

SERVICE = "collector"
MAX_ID = 200  # characters, of `id` and of `source`
MAX_SUBJECT = 500
_MAX_PAYLOAD = 600_000  # bytes of a dead letter's payload: in base64 that is still below Kafka's limit of a message
_MAX_LETTER = 900_000
_DETAIL_CHARS = 300
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")  # CloudEvents 1.0 forbids these in attributes


class SentEvent(msgspec.Struct):
    """An event as its sender wrote it, in the form of CloudEvents: nothing is checked but the JSON types. Unknown members are ignored."""

    id: str | None = None
    source: str | None = None
    type: str | None = None
    time: str | None = None
    subject: str | None = None
    dataschema: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None
    specversion: str | None = None


class Unreadable(NamedTuple):
    """An event that could not be read: what was wrong, and the attributes as far as they are known."""

    problem: Invalid
    event: SentEvent = SentEvent()


class Limits(msgspec.Struct, frozen=True):
    """How large things may be: bytes of one event as sent, events of one request, levels of nesting in data."""

    event_bytes: int = 32 * 1024
    events: int = 500
    depth: int = 32


class Sending(NamedTuple):
    """One request: what the server knows of it and the rules that hold for it. `source` and `types` are those that its key is bound to.

    `way` is how it came in, as a dead letter says it (`headrace.dead_letter`).
    """

    receipt: event.Receipt
    received_at: str
    registry: Registry
    limits: Limits
    source: str | None = None
    types: frozenset[str] | None = None
    way: str | None = None


class TooMany(Exception):
    """A request holds more events than one may."""


class Rejection(msgspec.Struct, frozen=True):
    """One event that was refused, with its place in the request and what goes to the dead-letter topic."""

    index: int
    letter: DeadLetter


class Outcome(NamedTuple):
    """What became of a request's events: keys and values for `events.raw`, and those refused."""

    messages: Sequence[tuple[bytes, bytes]]
    rejected: list[Rejection]


def accept(sent: Sequence[SentEvent | Unreadable], texts: Callable[[], Sequence[bytes]], sending: Sending) -> Outcome:
    """Check each event. `texts` gives the events' own bytes as sent; it is asked only where one is refused."""
    messages: list[tuple[bytes, bytes]] = []
    refused: list[tuple[int, SentEvent, Invalid]] = []
    for index, one in enumerate(sent):
        if isinstance(one, Unreadable):
            refused.append((index, one.event, one.problem))
            continue
        try:
            messages.append(_message(one, sending))
        except Invalid as problem:
            refused.append((index, one, problem))
    own = texts() if refused else ()
    return Outcome(messages, [Rejection(index, letter(problem, own[index], sending, one)) for index, one, problem in refused])


def letter(problem: Invalid, payload: bytes, sending: Sending, one: SentEvent | None = None) -> DeadLetter:
    """The dead letter of one event, or of a whole request body that could not be read."""
    one = one or SentEvent()
    detail, kept = problem.detail[:_DETAIL_CHARS], payload[:_MAX_PAYLOAD]
    if len(kept) < len(payload):
        detail += f" (payload cut to {len(kept)} of {len(payload)} bytes)"
    text, encoding = dead_letter.text_of(kept)
    if encoding == "utf8" and len(msgspec.json.encode(text)) > _MAX_LETTER:  # escapes can make JSON text six times as long
        text, encoding = base64.b64encode(kept).decode(), "base64"
    return DeadLetter(
        dead_letter_id=dead_letter.new_id(),
        service=SERVICE,
        reason=problem.reason,
        detail=detail,
        rejected_at=sending.received_at,
        payload=text,
        payload_encoding=encoding,
        id=_excerpt(one.id),
        source=_excerpt(one.source),
        type=_excerpt(one.type),
        subject=_excerpt(one.subject),
        time=_excerpt(one.time),
        received_at=sending.received_at,
        key_id=sending.receipt.key_id,
        origin_topic=sending.way,
    )


def _message(one: SentEvent, sending: Sending) -> tuple[bytes, bytes]:
    registry = sending.registry
    id = _attribute("id", one.id, MAX_ID)
    source = _attribute("source", one.source, MAX_ID)
    if sending.source is not None and source != sending.source:
        raise Invalid(Reason.NOT_ALLOWED, f"source {source[:100]!r} is not that of this write key: it may send as {sending.source!r} only")
    if not one.type:
        raise Invalid(Reason.MISSING_ATTRIBUTE, "type is missing or empty: name an event type of the tracking plan")
    type = registry.type_named(one.type)
    if type is None:
        raise Invalid(Reason.UNKNOWN_TYPE, f"type {one.type[:100]!r} is not in the tracking plan; known: {', '.join(registry.types)}")
    if sending.types is not None and type not in sending.types:
        raise Invalid(Reason.NOT_ALLOWED, f"type {type} is none of those of this write key: {', '.join(sorted(sending.types))}")
    if one.subject:
        _attribute("subject", one.subject, MAX_SUBJECT)
    elif registry.types[type].subject == "required":
        raise Invalid(Reason.MISSING_ATTRIBUTE, f"subject is missing or empty: an event of type {type} is about somebody")
    if one.specversion not in (None, "1.0"):
        raise Invalid(Reason.INVALID_ATTRIBUTE, f"specversion is {one.specversion[:20]!r}: only CloudEvents 1.0 is understood")
    dataschema = registry.schema_ref(type, one.dataschema)
    time = utc(one.time) if one.time is not None else sending.received_at
    data = bytes(one.data) or _from_base64(one.data_base64)
    jsontext.check_object(data, sending.limits.depth)
    accepted = event.RawEvent(
        id=id,
        source=source,
        type=type,
        time=time,
        received_at=sending.received_at,
        dataschema=dataschema,
        data=msgspec.Raw(data),
        receipt=sending.receipt,
        subject=one.subject or None,
    )
    return event.identity_key(source, id), event.encode(accepted)


def _attribute(name: str, value: str | None, longest: int) -> str:
    if not value:
        raise Invalid(Reason.MISSING_ATTRIBUTE, f"{name} is missing or empty")
    if len(value) > longest:
        raise Invalid(Reason.INVALID_ATTRIBUTE, f"{name} has {len(value)} characters: at most {longest} are allowed")
    if not value.isprintable() and _CONTROL.search(value):
        raise Invalid(Reason.INVALID_ATTRIBUTE, f"{name} holds a control character: {value[:50]!r}")
    return value


def _from_base64(text: str | None) -> bytes:
    if text is None:
        raise Invalid(Reason.MISSING_ATTRIBUTE, "data is missing: it must be a JSON object")
    try:
        return base64.b64decode(text, validate=True).strip()
    except ValueError:
        raise Invalid(Reason.UNPARSEABLE, "data_base64 is not base64") from None


def utc(time: str) -> str:
    """`time` (RFC 3339) in UTC with `Z` and at most microseconds. Raises Invalid(INVALID_ATTRIBUTE)."""
    try:
        moment = msgspec.convert(time, datetime)
        if moment.tzinfo is None:
            raise Invalid(Reason.INVALID_ATTRIBUTE, f"time {time[:40]!r} has no time zone: end it with Z or an offset such as +02:00")
        if len(time) <= 27 and time[-1] == "Z" and time[10] == "T":
            return time
        return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except (msgspec.ValidationError, OverflowError):
        raise Invalid(Reason.INVALID_ATTRIBUTE, f"time {time[:40]!r} is not RFC 3339, such as 2026-01-31T12:00:00Z") from None


def _excerpt(value: str | None) -> str | None:
    return value[:MAX_SUBJECT] if value else None
