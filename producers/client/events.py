"""From what a caller hands in to the JSON text of a CloudEvent. Pure but for the clock and the random bits of an id."""

import os
import time
from datetime import UTC, datetime
from typing import Any, ClassVar, Protocol

import msgspec
from msgspec import UNSET, UnsetType


class TypedEvent(Protocol):
    """An event's data as an object of a class that `headrace schemas python` wrote."""

    event_type: ClassVar[str]
    schema_ref: ClassVar[str]


class InvalidEvent(ValueError):
    """What was handed in cannot be sent as an event; nothing was queued."""


class Event(msgspec.Struct, kw_only=True, frozen=True):
    """A CloudEvent as it is sent. `data` is JSON text."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str | UnsetType = UNSET
    dataschema: str | UnsetType = UNSET
    data: msgspec.Raw


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)


def event_text(
    type: str,
    data: Any,
    *,
    id: str,
    source: str,
    subject: str | None = None,
    time: datetime | str | None = None,
    schema_ref: str | None = None,
) -> bytes:
    """The JSON text of an event that happened at `time` (now where it is None). Raises InvalidEvent.

    `data` is anything that msgspec writes as a JSON object: a mapping, a Struct, a dataclass. NaN and infinity become null.
    """
    try:
        text = _encoder.encode(data)
        if text[:1] != b"{":
            raise InvalidEvent(f"the data of an event is a JSON object, not {data.__class__.__name__}")
        return _encoder.encode(
            Event(
                specversion="1.0",
                id=id,
                source=source,
                type=type,
                time=_moment(time),
                subject=subject or UNSET,
                dataschema=schema_ref or UNSET,
                data=msgspec.Raw(text),
            )
        )
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError, msgspec.EncodeError) as error:
        raise InvalidEvent(f"an event of type {str(type)[:50]!r} cannot be written as JSON: {error}") from None


def read_event(text: bytes) -> Event:
    """The event in a text that `event_text` made. Raises msgspec.DecodeError."""
    return _decoder.decode(text)


def _moment(when: datetime | str | None) -> str:
    if isinstance(when, str):
        return when
    if when is not None and when.tzinfo is None:
        raise InvalidEvent("time has no time zone: use datetime.now(UTC), or an RFC 3339 text with Z or an offset")
    return (when or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, 74 random ones; so ids of later events sort later."""
    chance = int.from_bytes(os.urandom(10), "big")
    millis = time.time_ns() // 1_000_000 & (1 << 48) - 1
    number = millis << 80 | 7 << 76 | (chance >> 68) << 64 | 2 << 62 | chance & (1 << 62) - 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
