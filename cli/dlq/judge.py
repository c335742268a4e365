"""What becomes of a dead letter when it is replayed: the same checks again, as they stand now. Pure.

What the collector refused goes through the collector's own reading and `accept`; what a service behind Kafka refused goes back to the topic
that it came from, under the same key. `received_at` stays what it was.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from collector import cloudevents, otlp, segment
from collector.accept import Limits, Sending, SentEvent, Unreadable, accept
from collector.otlp import events as otlp_events
from collector.reading import Form, Texts, read_batch, read_one
from collector.v1 import collector_pb2 as pb
from enricher.stage import validated
from headrace import event, replays
from headrace.dead_letter import DeadLetter, Invalid, Reason
from headrace.event import ENRICHED_TOPIC, RAW_TOPIC, Receipt
from headrace.messages import MAX_VALUE_BYTES
from headrace.protobuf import Messages
from headrace.registry import Registry

MOST_TIMES = 5  # an event that was refused after so many replays is never replayed again
GRPC = "grpc"

Sent = tuple[Sequence[SentEvent | Unreadable], Texts]


class Bound(NamedTuple):
    """What a write key is bound to, as the collector knows it."""

    source: str  # of Segment calls
    only_source: str | None = None
    types: frozenset[str] | None = None


class Replay(NamedTuple):
    """The letter's events as messages for `topic`: keys and values."""

    topic: str
    messages: Sequence[tuple[bytes, bytes]]


class Looping(Exception):
    """The event was refused although it had been replayed; the message is one sentence."""


class Judge:
    """`keys` by key id; `again` takes letters of events too that were refused after a replay, within MOST_TIMES."""

    def __init__(self, registry: Registry, messages: Messages, limits: Limits, keys: Mapping[str, Bound], *, again: bool = False) -> None:
        self._registry = registry
        self._messages = messages
        self._limits = limits
        self._keys = keys
        self._most = MOST_TIMES if again else 0

    def __call__(self, letter: DeadLetter) -> Replay:
        """What to send. Raises Invalid where it would be refused again, and Looping."""
        if "(payload cut" in letter.detail:
            raise Invalid(Reason.TOO_LARGE, "only a part of its bytes was kept: it has to be sent again by whoever sent it")
        if letter.origin_partition is None:
            return Replay(RAW_TOPIC, self._at_the_collector(letter))
        how = {RAW_TOPIC: self._raw, ENRICHED_TOPIC: self._enriched}.get(letter.origin_topic or "")
        if how is None:
            raise Invalid(Reason.MALFORMED, f"it was no event: it stood in {letter.origin_topic}")
        found = how(letter)
        found.receipt = self._marked(found.receipt, letter)
        value = event.encode(found)
        if len(value) > MAX_VALUE_BYTES:
            raise Invalid(Reason.TOO_LARGE, f"{len(value)} bytes; at most {MAX_VALUE_BYTES} go into {letter.origin_topic}")
        return Replay(letter.origin_topic or "", [(event.identity_key(found.source, found.id), value)])

    def _raw(self, letter: DeadLetter) -> event.RawEvent:
        return validated(self._registry, letter.payload_bytes())

    def _enriched(self, letter: DeadLetter) -> event.RawEvent:
        try:
            return event.decode_enriched(letter.payload_bytes())
        except msgspec.DecodeError as error:
            raise Invalid(Reason.UNPARSEABLE, f"not an event as the enricher writes it: {error}") from None

    def _marked(self, receipt: Receipt, letter: DeadLetter) -> Receipt:
        origin = replays.origin_of(receipt.collector_id)
        if origin is not None and origin.times >= self._most:
            more = "" if origin.times >= MOST_TIMES else ": --again replays it once more"
            raise Looping(f"refused again after a replay ({origin.times} in all) of {origin.letter}{more}")
        return msgspec.structs.replace(receipt, collector_id=replays.marked(receipt.collector_id, letter.dead_letter_id))

    # ---- refused by the collector

    def _at_the_collector(self, letter: DeadLetter) -> Sequence[tuple[bytes, bytes]]:
        way, key = letter.origin_topic, self._keys.get(letter.key_id or "")
        if way is None or letter.received_at is None:
            raise Invalid(Reason.MALFORMED, "it does not say how it came to the collector: it has to be sent again by whoever sent it")
        if key is None:
            raise Invalid(Reason.NOT_ALLOWED, f"there is no write key {letter.key_id} any more")
        path = way.partition("?")[0]
        receipt = Receipt(collector_id=replays.marked("", letter.dead_letter_id), protocol=_protocol(path), key_id=letter.key_id)
        sending = Sending(receipt, letter.received_at, self._registry, self._limits, key.only_source, key.types)
        outcome = accept(*self._read(letter.payload_bytes(), way, path, key), sending)
        if outcome.rejected:
            refused = outcome.rejected[0].letter
            raise Invalid(refused.reason, refused.detail)
        if not outcome.messages:
            raise Invalid(Reason.MALFORMED, "there is no event in it")
        for _, value in outcome.messages:
            validated(self._registry, value)  # the enricher's question, which comes next
        return outcome.messages

    def _read(self, payload: bytes, way: str, path: str, key: Bound) -> Sent:
        """The events of `payload`, which is one event as it was sent, or a request that could not be read."""
        if path == GRPC:
            return self._of_grpc(payload)
        if path == otlp.PATH:
            media_type = otlp.JSON if payload.lstrip()[:1] == b"{" else otlp.PROTOBUF
            return otlp_events.read(payload, media_type, self._registry, self._limits)
        if way != path:
            return cloudevents.read_binary(payload, cloudevents.headers_in(way), self._limits)
        if path == "/v1/events":
            return _as_sent(payload, cloudevents.FORM, self._limits, many=payload.lstrip()[:1] == b"[")
        call = path.removeprefix("/v1/")
        form = segment.form(key.source, self._registry, call if call in segment.CALLS else None)
        return _as_sent(payload, form, self._limits, many=call == "batch" and _has_batch(payload))

    def _of_grpc(self, payload: bytes) -> Sent:
        from google.protobuf.message import DecodeError

        from collector.rpc import event_of  # gRPC is heavy

        try:
            one = pb.Event.FromString(payload)
        except DecodeError:
            raise Invalid(Reason.UNPARSEABLE, "not a headrace.collector.v1.Event") from None
        return [event_of(one, self._limits.event_bytes, self._messages)], lambda: [payload]


def _as_sent(payload: bytes, form: Form, limits: Limits, *, many: bool) -> Sent:
    read: Callable[[bytes, Form, Limits], Sent] = read_batch if many else read_one
    return read(payload, form, limits)


class _Batch(msgspec.Struct):
    batch: msgspec.Raw = msgspec.Raw(b"")


_batch = msgspec.json.Decoder(_Batch)


def _has_batch(payload: bytes) -> bool:
    try:
        return bool(bytes(_batch.decode(payload).batch))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _protocol(path: str) -> str:
    return {"/v1/events": "cloudevents", otlp.PATH: "otlp", GRPC: "grpc"}.get(path, "segment")
