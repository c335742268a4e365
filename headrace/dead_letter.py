"""Rejections: why one event was refused for good, and the form in which it is kept.

Two exceptions carry the policy of the whole platform:

- `Invalid`: this event can never be delivered. It goes to the dead-letter topic, once, and is not retried.
- `Unavailable`: something that we depend on is down. The batch waits and is tried again; nothing is dead-lettered.

Anything else that is raised is a defect: the process ends with its batch uncommitted and is started again.
"""

import base64
import uuid
from enum import StrEnum

import msgspec

TOPIC_PREFIX = "dead-letter."
_NAMESPACE = uuid.UUID("5e0dfb6f-6ab5-4d1c-9a35-7b8fb8d1d4d5")


class Reason(StrEnum):
    """Every reason for which an event can be refused. Closed: a new one is added here, with its meaning."""

    UNPARSEABLE = "unparseable"  # the bytes of a request or an event are not JSON (or not the protobuf message said)
    MALFORMED = "malformed"  # JSON, but not of the form of an event: not an object, an attribute of a wrong JSON type
    MISSING_ATTRIBUTE = "missing_attribute"  # a required attribute is absent or empty
    INVALID_ATTRIBUTE = "invalid_attribute"  # an attribute is there but breaks its rule (time is no RFC 3339, id too long)
    UNKNOWN_TYPE = "unknown_type"  # the type is not in the tracking plan
    NOT_ALLOWED = "not_allowed"  # the write key is bound to another source, or to other types
    UNKNOWN_SCHEMA = "unknown_schema"  # dataschema names a version that is not in the tracking plan
    TOO_LARGE = "too_large"  # one event is larger than the limit
    SCHEMA_INVALID = "schema_invalid"  # data breaks its JSON Schema
    DOCUMENT_REJECTED = "document_rejected"  # Elasticsearch refused the document for good
    ROW_REJECTED = "row_rejected"  # the event cannot be a row of the lake
    POISON = "poison"  # processing this message crashed the service again and again
    ID_CONFLICT = "id_conflict"  # an event of the same (source, id) and other content came before
    QUALITY = "quality"  # a quality rule with severity `fail` does not hold


class Invalid(Exception):
    """One event is refused for good.

    `detail` says to a person what was wrong, where, and what would be right. It never holds more than a short excerpt of the data.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Unavailable(Exception):
    """A dependency cannot be reached or cannot take more now: wait, then try the same again."""


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One rejected event as it stands in a `dead-letter.<service>` topic, in Elasticsearch and in the lake.

    `payload` holds the original bytes: as text where they are UTF-8 (`payload_encoding` is "utf8"), else in base64.
    The attributes are those of the event as far as they could be read, and None where not.
    `origin_topic` is where it came from: a topic of Kafka (then with partition and offset), or for one that the collector refused the way
    in: the path of the request, such as `/v1/batch` (with CloudEvents' attributes as its query where they stood in the headers), or `grpc`.
    """

    dead_letter_id: str
    service: str
    reason: Reason
    detail: str
    rejected_at: str
    payload: str
    payload_encoding: str = "utf8"
    id: str | None = None
    source: str | None = None
    type: str | None = None
    subject: str | None = None
    time: str | None = None
    received_at: str | None = None
    key_id: str | None = None
    origin_topic: str | None = None
    origin_partition: int | None = None
    origin_offset: int | None = None

    def payload_bytes(self) -> bytes:
        """The bytes as they were refused."""
        return base64.b64decode(self.payload) if self.payload_encoding == "base64" else self.payload.encode()


def text_of(payload: bytes) -> tuple[str, str]:
    """`payload` as (text, encoding) for `DeadLetter.payload` and `.payload_encoding`.

    NUL is valid UTF-8, but not every store behind takes it: such bytes go as base64 too.
    """
    if b"\0" not in payload:
        try:
            return payload.decode("utf-8"), "utf8"
        except UnicodeDecodeError:
            pass
    return base64.b64encode(payload).decode("ascii"), "base64"


def new_id() -> str:
    """An id for a rejection at the collector: each attempt to send is one dead letter."""
    return str(uuid.uuid4())


def id_at(service: str, topic: str, partition: int, offset: int) -> str:
    """The id of a rejection of a Kafka message: the same each time `service` refuses the same message."""
    return str(uuid.uuid5(_NAMESPACE, f"{service} {topic} {partition} {offset}"))


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(DeadLetter)


def encode(letter: DeadLetter) -> bytes:
    """`letter` as a Kafka value (JSON)."""
    return _encoder.encode(letter)


def decode(value: bytes) -> DeadLetter:
    """The inverse of `encode`. Raises msgspec.DecodeError (ValidationError included) for anything else."""
    try:
        return _decoder.decode(value)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None
