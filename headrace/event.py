"""The event: a fact sent by a producer, with the attributes of CloudEvents 1.0, as it stands in Kafka.

`data` stays raw JSON text on the whole way: what came in goes out byte for byte.
"""

import time
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

RAW_TOPIC = "events.raw"
ENRICHED_TOPIC = "events.enriched"


class Receipt(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True, gc=False):
    """What the server knows of the sending. No client can set any of it."""

    collector_id: str
    protocol: str  # "segment", "cloudevents", "otlp" or "grpc"
    key_id: str | None = None
    client: str | None = None  # keyed hash of the client's address
    user_agent: str | None = None


class RawEvent(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """An event as the collector wrote it to `events.raw`.

    `time` and `received_at` are RFC 3339 in UTC with a `Z`; `dataschema` is a schema ref such as `purchase/1-0-0`;
    `subject` is whom or what the event is about (for the shop: the customer).
    """

    id: str
    source: str
    type: str
    time: str
    received_at: str
    dataschema: str
    data: msgspec.Raw
    receipt: Receipt
    subject: str | None = None


class EnrichedEvent(RawEvent, kw_only=True, omit_defaults=True, gc=False):
    """An event as the enricher wrote it to `events.enriched`: its data is valid.

    `enrichment` is a JSON object with one member for each enrichment that the tracking plan names for the type, `{}` where it names none.
    """

    enriched_at: str
    enrichment: msgspec.Raw = msgspec.Raw(b"{}")


_encoder = msgspec.json.Encoder()
_raw_decoder = msgspec.json.Decoder(RawEvent)
_enriched_decoder = msgspec.json.Decoder(EnrichedEvent)


def encode(event: RawEvent) -> bytes:
    """`event` (raw or enriched) as a Kafka value (JSON)."""
    return _encoder.encode(event)


def decode_raw(value: bytes) -> RawEvent:
    """A value of `events.raw`. Raises msgspec.DecodeError (ValidationError included) for anything else."""
    try:
        return _raw_decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def decode_enriched(value: bytes) -> EnrichedEvent:
    """A value of `events.enriched`. Raises msgspec.DecodeError (ValidationError included) for anything else."""
    try:
        return _enriched_decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def identity_key(source: str, id: str) -> bytes:
    """The Kafka key: all sendings of one event come into one partition, so the first is first everywhere."""
    return f"{source}\x1f{id}".encode()


def rfc3339(moment: datetime) -> str:
    """`moment` (with a time zone) in UTC with milliseconds and `Z`, as in RFC 3339 section 5.6."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def now() -> str:
    """The present moment, as `rfc3339` writes it."""
    second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(second)}.{nanoseconds // 1_000_000:03d}Z"


_LONGEST_MOMENT = len("2026-01-01T00:00:00.000000Z")


def is_utc(text: str) -> bool:
    """Whether `text` is a moment as we write it: RFC 3339, `Z`, at most microseconds, which every store behind takes."""
    if len(text) > _LONGEST_MOMENT or text[10:11] != "T" or text[-1:] != "Z":
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
