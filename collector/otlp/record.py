"""What both encodings of OTLP come down to. Pure."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from headrace.dead_letter import Invalid, Reason


class Cut(NamedTuple):
    """The bytes of one record, with those of its resource and its scope, before any of them is read."""

    resource: bytes
    scope: bytes
    record: bytes


class Record(NamedTuple):
    """A log record. Times are in nanoseconds since 1970 and 0 where they are not set, as is the severity; so are texts "" and ids b""."""

    time: int
    observed_time: int
    severity_number: int
    severity_text: str
    event_name: str
    trace_id: bytes
    span_id: bytes
    body: Any
    attributes: dict[str, Any]


def members(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The object that key-value pairs are. Raises Invalid(MALFORMED) where a key comes twice, which OTLP forbids."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Invalid(Reason.MALFORMED, f"the attribute {key[:50]!r} comes twice")
        found[key] = value
    return found
