"""The wire format of Segment and RudderStack: what their SDKs call track, identify, page, screen, group and alias. Pure.

`messageId` becomes `id`; `userId`, else `anonymousId`, `subject`; `properties` or `traits` `data`; `timestamp`, else
`originalTimestamp`, `time`. RudderStack's SDKs put the traits of an identify call into `context`; nothing else of it is kept, and
nothing of `integrations`.
"""

import re
from functools import cache, partial
from typing import Any

import msgspec
import orjson

from collector.accept import SentEvent, Unreadable
from collector.reading import Form, elements, row
from headrace.dead_letter import Invalid, Reason
from headrace.registry import Registry

CALLS = ("track", "identify", "page", "screen", "group", "alias", "feedback")  # the last is ours: an event of that type in their form

_LONGEST_NAME = 500  # characters that a name may have which is looked for in other spellings
_WORD_EDGE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")


class Call(msgspec.Struct):
    """One call of an SDK as it is sent, with the names of the wire format. Unknown members are ignored."""

    type: str | None = None
    messageId: str | None = None
    userId: str | int | None = None
    anonymousId: str | int | None = None
    timestamp: str | None = None
    originalTimestamp: str | None = None
    event: str | None = None
    properties: msgspec.Raw = msgspec.Raw(b"")
    traits: msgspec.Raw = msgspec.Raw(b"")
    context: msgspec.Raw = msgspec.Raw(b"")
    name: str | None = None
    category: str | None = None
    groupId: str | int | None = None
    previousId: str | int | None = None


class _Key(msgspec.Struct):
    writeKey: str | None = None


class _Context(msgspec.Struct):
    traits: msgspec.Raw = msgspec.Raw(b"")


_ABSENT = (b"", b"null")
_MEMBERS = {"id": "messageId", "type": "event", "time": "timestamp", "subject": "userId"}

_call = msgspec.json.Decoder(Call)
_key = msgspec.json.Decoder(_Key)
_context = msgspec.json.Decoder(_Context)


@cache
def form(source: str, registry: Registry, type: str | None = None) -> Form:
    """How Segment writes events that come from `source`; each call is of `type` where that is given, else of the type it names."""
    to_event = partial(_to_event, source=source, registry=registry, type=type)
    return Form(
        container='a JSON object with an array "batch"',
        events=lambda body, most: [to_event(call) for call in _calls(Call, body, most)],
        split=lambda body, most: _calls(msgspec.Raw, body, most),
        event=lambda text: to_event(_call.decode(text)),
        members=_MEMBERS,
        source=source,
    )


def _calls(of: Any, body: bytes, most: int) -> list[Any]:
    return elements(_batch(of, most).decode(body).batch, most)


@cache
def _batch(of: Any, most: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("Batch", [("batch", row(of, most))]))


def write_key(body: bytes) -> str | None:
    """The member `writeKey` of a body, for senders that can set no header (sendBeacon); None where there is none."""
    try:
        return _key.decode(body).writeKey
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _to_event(call: Call, source: str, registry: Registry, type: str | None) -> SentEvent | Unreadable:
    kind = type or call.type
    event = SentEvent(
        id=call.messageId,
        source=source,
        type=kind,
        time=call.timestamp if call.timestamp is not None else call.originalTimestamp,
        subject=_text(call.userId) or _text(call.anonymousId),
    )
    if kind == "track":
        if not call.event:
            return Unreadable(Invalid(Reason.MISSING_ATTRIBUTE, "event is missing or empty: a track call names its event"), event)
        event.type = _type_named(call.event, registry)
    elif kind not in CALLS:
        detail = f"type {str(kind)[:50]!r} is none of {', '.join(CALLS)}"
        return Unreadable(Invalid(Reason.MISSING_ATTRIBUTE if not kind else Reason.UNKNOWN_TYPE, detail), event)
    try:
        event.data = _data(kind, call)
    except Invalid as problem:
        return Unreadable(problem, event)
    return event


def _type_named(name: str, registry: Registry) -> str:
    """The event type that clients call `name`; "Add To Cart" and "addToCart" are add_to_cart too."""
    if len(name) > _LONGEST_NAME:
        return name
    return registry.type_named(name) or registry.type_named(_WORD_EDGE.sub("_", name).strip("_")) or name


def _data(kind: str, call: Call) -> msgspec.Raw:
    """The call's properties or traits, with those members of the call that say what it is about."""
    given = call.traits if kind in ("identify", "group") else call.properties
    if kind == "identify" and bytes(given) in _ABSENT:
        given = _traits_of(call.context)
    raw = msgspec.Raw(b"{}") if bytes(given) in _ABSENT else given
    about: dict[str, Any] = {}
    if kind in ("page", "screen"):
        about = {"name": call.name, "category": call.category}
    elif kind == "group":
        about = {"group_id": _text(call.groupId)}
    elif kind == "alias":
        about = {"previous_id": _text(call.previousId)}
    about = {member: value for member, value in about.items() if value is not None}
    return _joined(about, raw) if about else raw


def _traits_of(context: msgspec.Raw) -> msgspec.Raw:
    """The traits in a call's context; absent where that is no object, for the context does not matter otherwise."""
    try:
        return _context.decode(context).traits if bytes(context) not in _ABSENT else msgspec.Raw(b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.Raw(b"")


def _joined(about: dict[str, Any], raw: msgspec.Raw) -> msgspec.Raw:
    """`about` and the members of `raw`, which win. What is no object stays as it is, to be refused by the check of data."""
    text = bytes(raw)
    if text[:1] != b"{":
        return raw
    try:
        own = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(Reason.UNPARSEABLE, f"data is not JSON that can be read: {error}") from None
    new = orjson.dumps({member: value for member, value in about.items() if member not in own})
    if len(new) == 2:
        return raw
    return msgspec.Raw(new[:-1] + b"," + text[1:] if own else new)


def _text(id: str | int | None) -> str | None:
    return None if id is None else str(id)
