"""From a body to its outcome, the fast way where that is possible: native code for the events that are surely good.

`reading` and `accept` are the rule. Native code (collector/native) vouches for an event or leaves it alone, and what it leaves goes the
ordinary way; so both ways have the same outcome, and one suite of tests runs on both. Without native code everything goes the ordinary way.
"""

from collections.abc import Callable
from functools import lru_cache

import msgspec

from collector.accept import Limits, Outcome, Rejection, Sending, SentEvent, Unreadable, accept
from collector.reading import Form, read_batch, read_event, read_one
from headrace.registry import Registry

try:
    from collector import _native
except ImportError:  # it was not built
    _native = None  # type: ignore[assignment]

BUILT = _native is not None

Read = Callable[[bytes], SentEvent | Unreadable]


def judge_batch(body: bytes, form: Form, sending: Sending, fast: "Fast | None") -> Outcome:
    """What becomes of the events of `body`. Raises what `read_batch` raises."""
    outcome = fast.batch(body, form, sending) if fast else None
    return outcome or accept(*read_batch(body, form, sending.limits), sending)


def judge_one(body: bytes, form: Form, sending: Sending, fast: "Fast | None") -> Outcome:
    """What becomes of the one event that `body` is. Raises what `read_one` raises."""
    outcome = fast.one(body, form, sending) if fast else None
    return outcome or accept(*read_one(body, form, sending.limits), sending)


class NotBuilt(Exception):
    """There is no native code here."""


class Fast:
    """Native code for one tracking plan. Each method answers None where the body as a whole needs the ordinary way."""

    def __init__(self, registry: Registry, limits: Limits) -> None:
        """Raises NotBuilt."""
        if not BUILT:
            raise NotBuilt("its native code is not built: run `make native`, or set COLLECTOR_NATIVE=auto")
        self._registry = registry
        self._limits = limits
        self._for = lru_cache(maxsize=256)(self._acceptor)

    def batch(self, body: bytes, form: Form, sending: Sending) -> Outcome | None:
        """The outcome for an array of CloudEvents or a batch of Segment's calls."""
        about = (sending.received_at.encode(), _text(sending.receipt))
        if form.source is None:
            found = self._for(sending.types).cloudevents(body, True, (sending.source or "").encode(), *about)
        elif sending.source not in (None, form.source):
            return None
        else:
            found = self._for(sending.types).tracks(body, form.source.encode(), *about)
        return _outcome(found, body, lambda text: read_event(text, form, sending.limits), sending)

    def one(self, body: bytes, form: Form, sending: Sending) -> Outcome | None:
        """The outcome for one CloudEvent."""
        if form.source is not None:
            return None
        about = (sending.received_at.encode(), _text(sending.receipt))
        found = self._for(sending.types).cloudevents(body, False, (sending.source or "").encode(), *about)
        return None if found is None or found[1] else _outcome(found, body, _never, sending)

    def protobuf(self, body: bytes, read: Read, sending: Sending) -> Outcome | None:
        """The outcome for the bytes of a PublishRequest; `read` reads those of one event."""
        about = (sending.received_at.encode(), _text(sending.receipt))
        found = self._for(sending.types).protobuf(body, (sending.source or "").encode(), *about)
        return _outcome(found, body, read, sending)

    def _acceptor(self, types: frozenset[str] | None) -> "_native.Acceptor":
        registry, limits = self._registry, self._limits
        rows = {
            called: (name, registry.schema_ref(name), registry.refs(name), registry.types[name].subject == "required")
            for called, name in registry.names.items()
            if types is None or name in types
        }
        return _native.Acceptor(rows, limits.event_bytes, limits.events, limits.depth)


def _outcome(found: "_native.Found | None", body: bytes, read: Read, sending: Sending) -> Outcome | None:
    if found is None:
        return None
    good, unsure = found
    messages: list[tuple[bytes, bytes]] | None = None  # where there is one that native code does not hold
    rejected: list[Rejection] = []
    for index, start, end in unsure:
        texts = [body[start:end]]
        outcome = accept([read(texts[0])], texts.copy, sending)
        if outcome.messages:
            messages = list(good) if messages is None else messages
            messages.insert(index - len(rejected), outcome.messages[0])
        rejected += [Rejection(index, one.letter) for one in outcome.rejected]
    return Outcome(good if messages is None else messages, rejected)


def _never(_: bytes) -> SentEvent:
    raise AssertionError("every event of this body is surely good")


_text = lru_cache(maxsize=4096)(msgspec.json.Encoder().encode)  # of receipts, which are few
