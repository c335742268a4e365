"""A Kafka message as the pure code sees it, and how a refused one becomes a dead letter."""

from typing import NamedTuple, Protocol

import msgspec

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason

Partition = tuple[str, int]  # topic, partition

# librdkafka's message.max.bytes and Kafka's default message.max.bytes both allow a value of this size with its key and headers.
MAX_VALUE_BYTES = 990_000
_LONGEST_ATTRIBUTE = 2000  # characters; longer ones stand in the payload only


class Message(Protocol):
    """What we use of `confluent_kafka.Message`."""

    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


class Rejected(NamedTuple):
    """One message that is refused for good; `detail` as in `headrace.dead_letter.Invalid`."""

    message: Message
    reason: Reason
    detail: str


def letter_of(service: str, refusal: Rejected) -> DeadLetter:
    """The dead letter for a message that `service` refused: the same id each time, the attributes as far as they can be read.

    A payload that would make the letter larger than Kafka takes is cut, and the detail says where the whole of it is. A dead letter that
    is poison leaves nothing of itself in its letter, which comes the same way.
    """
    message, reason, detail = refusal
    value = message.value() or b""
    origin = message.topic(), message.partition(), message.offset()
    if reason is Reason.POISON and dead_letter.TOPIC_PREFIX in origin[0]:
        detail, value = f"{detail} (a dead letter: left at {origin[0]} partition {origin[1]} offset {origin[2]})", b""
    text, encoding = dead_letter.text_of(value)
    letter = DeadLetter(
        dead_letter_id=dead_letter.id_at(service, *origin),
        service=service,
        reason=reason,
        detail=detail,
        rejected_at=event.now(),
        payload=text,
        payload_encoding=encoding,
        origin_topic=origin[0],
        origin_partition=origin[1],
        origin_offset=origin[2],
        **_attributes(value),
    )
    too_much = len(dead_letter.encode(letter)) - MAX_VALUE_BYTES
    if too_much > 0:
        where = "{} partition {} offset {}".format(*origin)
        letter.payload = _cut(text, MAX_VALUE_BYTES // 8)  # JSON writes a character in at most 6 bytes
        letter.detail = f"{detail} (payload cut: all {len(value)} bytes are at {where})"
    return letter


def letter_in(service: str, message: Message) -> DeadLetter:
    """The dead letter in a message of a dead-letter topic, or one by `service` about the message where there is none in it.

    There is one in any case, and its moments are moments: a dead letter is never refused, for that would only make another.
    """
    try:
        letter = dead_letter.decode(message.value() or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return letter_of(service, Rejected(message, Reason.UNPARSEABLE, f"not a dead letter: {error}"))
    if not event.is_utc(letter.rejected_at):
        letter.rejected_at = event.now()
    if letter.received_at is not None and not event.is_utc(letter.received_at):
        letter.received_at = None
    return letter


def _cut(text: str, most: int) -> str:
    return text[: most - most % 4]  # whole groups of base64


class _Attributes(msgspec.Struct):
    id: object = None
    source: object = None
    type: object = None
    subject: object = None
    time: object = None
    received_at: object = None
    receipt: object = None


_decoder = msgspec.json.Decoder(_Attributes)


def _attributes(value: bytes) -> dict[str, str]:
    try:
        found = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    said = {name: getattr(found, name) for name in ("id", "source", "type", "subject", "time", "received_at")}
    if isinstance(found.receipt, dict):
        said["key_id"] = found.receipt.get("key_id")
    if not (isinstance(found.received_at, str) and event.is_utc(found.received_at)):
        del said["received_at"]
    return {name: text for name, text in said.items() if isinstance(text, str) and len(text) <= _LONGEST_ATTRIBUTE}
