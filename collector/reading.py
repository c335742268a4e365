"""From the bytes of a request to its events, whatever their form, so that one bad event spoils no other. Pure."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import orjson

from collector import jsontext
from collector.accept import Limits, SentEvent, TooMany, Unreadable
from headrace.dead_letter import Invalid, Reason

Texts = Callable[[], Sequence[bytes]]

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Form(NamedTuple):
    """How a protocol writes events in JSON.

    `events` reads all of a body at once, `split` only finds where each event begins and ends, `event` reads one. They raise
    msgspec.DecodeError, UnicodeDecodeError or RecursionError, and the first two TooMany where there are more events than is said.
    `members` says which member of an event holds which attribute.
    """

    container: str  # what a body must be, for a person
    events: Callable[[bytes, int], list[SentEvent | Unreadable]]
    split: Callable[[bytes, int], list[msgspec.Raw]]
    event: Callable[[bytes], SentEvent | Unreadable]
    members: Mapping[str, str]
    source: str | None = None  # of all events, where the form has no member for it


def read_batch(body: bytes, form: Form, limits: Limits) -> tuple[list[SentEvent | Unreadable], Texts]:
    """The events of `body`, and a function for the bytes of each as sent.

    Raises Invalid where `body` as a whole is not JSON (UNPARSEABLE) or not of the form (MALFORMED), TooMany where it holds too many.
    """
    try:
        sent = form.events(body, limits.events)
    except _NOT_JSON:
        return _one_by_one(body, form, limits)
    if len(body) > limits.event_bytes:
        return _one_by_one(body, form, limits)
    return sent, lambda: [bytes(raw) for raw in form.split(body, limits.events)]


def read_one(body: bytes, form: Form, limits: Limits) -> tuple[list[SentEvent | Unreadable], Texts]:
    """The one event that `body` is. Raises Invalid where `body` is not a JSON object (UNPARSEABLE or MALFORMED)."""
    text = body.strip()
    if text[:1] != b"{":
        raise _not_of_form(body, "a JSON object")
    one = read_event(text, form, limits)
    if isinstance(one, Unreadable) and one.problem.reason is Reason.UNPARSEABLE:
        raise one.problem
    return [one], lambda: [body]


def _one_by_one(body: bytes, form: Form, limits: Limits) -> tuple[list[SentEvent | Unreadable], Texts]:
    """The slow way, for a body with an event that is unreadable or perhaps too large."""
    texts = _texts(body, form, limits.events)
    return [read_event(text, form, limits) for text in texts], lambda: texts


def _texts(body: bytes, form: Form, most: int) -> list[bytes]:
    try:
        return [bytes(raw) for raw in form.split(body, most)]
    except _NOT_JSON as error:
        mended = jsontext.without_lone_surrogates(body)
        if mended == body:
            raise _not_of_form(body, form.container, error) from None
    try:
        raws = [bytes(raw) for raw in form.split(mended, most)]
    except _NOT_JSON as error:
        raise _not_of_form(body, form.container, error) from None
    texts, end = [], 0
    for raw in raws:
        start = mended.index(raw, end)
        end = start + len(raw)
        texts.append(body[start:end])
    return texts


def read_event(text: bytes, form: Form, limits: Limits) -> SentEvent | Unreadable:
    """The event that `text` is, or why it cannot be read."""
    if len(text) > limits.event_bytes:
        detail = f"the event has {len(text)} bytes: at most {limits.event_bytes} are allowed"
        return Unreadable(Invalid(Reason.TOO_LARGE, detail), _glimpse(text, form))
    try:
        return form.event(text)
    except msgspec.ValidationError as error:
        return Unreadable(Invalid(Reason.MALFORMED, str(error)), _glimpse(text, form))
    except RecursionError:
        return Unreadable(Invalid(Reason.MALFORMED, f"the event is nested deeper than {limits.depth} levels"))
    except _NOT_JSON as error:
        lone = jsontext.without_lone_surrogates(text) != text
        detail = "a string has the escape of a lone surrogate" if lone else str(error)
        return Unreadable(Invalid(Reason.UNPARSEABLE, f"the event is not JSON that can be read: {detail}"))


def _glimpse(text: bytes, form: Form) -> SentEvent:
    """What can be known of an event that breaks the form: those attributes that are strings."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return SentEvent()
    if not isinstance(value, dict):
        return SentEvent()
    return SentEvent(**{name: value[member] for name, member in form.members.items() if isinstance(value.get(member), str)})


def _not_of_form(body: bytes, container: str, error: Exception | None = None) -> Invalid:
    if not body.strip():
        return Invalid(Reason.UNPARSEABLE, f"the body is empty: send {container}")
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except RecursionError:
        return Invalid(Reason.MALFORMED, "the body is nested too deeply to be read")
    except _NOT_JSON as wrong:
        return Invalid(Reason.UNPARSEABLE, f"the body is not JSON: {wrong}")
    return Invalid(Reason.MALFORMED, f"the body must be {container}" + (f": {error}" if error else ""))


@cache
def row(of: Any, most: int) -> type[msgspec.Struct]:
    """A type for a JSON array, of which no more than the first `most` + 1 elements are read: millions would cost memory. See `elements`."""
    return msgspec.defstruct("Row", [(f"at{n}", of, None) for n in range(most + 1)], array_like=True)


def elements(found: msgspec.Struct, most: int) -> list[Any]:
    """The elements of a `row`. Raises TooMany where there are more than `most`."""
    given = [one for one in msgspec.structs.astuple(found) if one is not None]
    if len(given) > most:
        raise TooMany(f"the request has more than {most} events: send at most {most} at once")
    return given


def check_count(count: int, limits: Limits) -> None:
    """Raises TooMany where `count` events are more than one request may hold."""
    if count > limits.events:
        raise TooMany(f"the request has {count} events: send at most {limits.events} at once")
