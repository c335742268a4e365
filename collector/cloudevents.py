"""CloudEvents 1.0 over HTTP: the structured, the batched and the binary form. Pure."""

from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

from collector.accept import MAX_SUBJECT, Limits, SentEvent, Unreadable
from collector.reading import Form, Texts, elements, row
from headrace.dead_letter import Invalid, Reason

ATTRIBUTES = ("id", "source", "type", "time", "subject", "dataschema", "specversion")
_BINARY = frozenset(f"ce-{name}" for name in ATTRIBUTES)


@cache
def _array(of: Any, most: int) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(row(of, most))


FORM = Form(
    container="a JSON array of events",
    events=lambda body, most: elements(_array(SentEvent, most).decode(body), most),
    split=lambda body, most: elements(_array(msgspec.Raw, most).decode(body), most),
    event=msgspec.json.Decoder(SentEvent).decode,
    members={name: name for name in ("id", "source", "type", "time", "subject")},
)


def is_binary(headers: Mapping[str, str]) -> bool:
    """Whether a request with these headers (lower case) has the attributes in its headers and data as its body."""
    return not _BINARY.isdisjoint(headers)


def way(path: str, headers: Mapping[str, str]) -> str:
    """How a request in binary form came in: its path, with the attributes as the query, since its body has none of them.

    An attribute that is too long for any event is cut, and is too long still.
    """
    given = {name: unquote(headers[f"ce-{name}"])[: MAX_SUBJECT + 1] for name in ATTRIBUTES if f"ce-{name}" in headers}
    return f"{path}?{urlencode(given)}"


def headers_in(way: str) -> dict[str, str]:
    """The headers that `way` was made of."""
    return {f"ce-{name}": quote(value) for name, value in parse_qsl(way.partition("?")[2], keep_blank_values=True)}


def read_binary(body: bytes, headers: Mapping[str, str], limits: Limits) -> tuple[list[SentEvent | Unreadable], Texts]:
    """The one event in binary form. Raises Invalid(UNPARSEABLE) where the body is not JSON."""
    data = body.strip()
    event = SentEvent()
    for name in ATTRIBUTES:
        if f"ce-{name}" in headers:
            setattr(event, name, unquote(headers[f"ce-{name}"]))
    if len(data) > limits.event_bytes:
        detail = f"the event has {len(data)} bytes: at most {limits.event_bytes} are allowed"
        return [Unreadable(Invalid(Reason.TOO_LARGE, detail), event)], lambda: [body]
    try:
        event.data = msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        raise Invalid(Reason.MALFORMED, f"the body is nested deeper than {limits.depth} levels") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(Reason.UNPARSEABLE, f"the body is not JSON: {error}") from None
    return [event], lambda: [body]
