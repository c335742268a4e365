"""Replays of dead letters: how an event says that it was replayed, and the record of who replayed what. Pure.

A replayed event keeps all that the server noted of its sending, `received_at` included. Only `collector_id`, who put it into Kafka, says
more: `<collector>/replay-<n>/<dead_letter_id>`, where n counts how often the event was replayed. (A dead letter of the collector itself
does not say which one it was: there the first part is not there.)

The record is the topic `replays`. What was sent and what is recorded of it are one transaction of Kafka, so neither is without the other.
"""

import re
from typing import NamedTuple

import msgspec

TOPIC = "replays"
_MARK = re.compile(r"(?:^|/)replay-(?P<times>[0-9]{1,4})/(?P<letter>[^/]+)$")


class Origin(NamedTuple):
    """The dead letter that an event was replayed from, and how often the event was replayed by then."""

    letter: str
    times: int


def origin_of(collector_id: str) -> Origin | None:
    """Where an event with this `collector_id` was replayed from, or None where it never was."""
    found = _MARK.search(collector_id)
    return Origin(found["letter"], int(found["times"])) if found else None


def marked(collector_id: str, letter: str) -> str:
    """The `collector_id` of an event that is replayed (once more) from the dead letter `letter`."""
    before = origin_of(collector_id)
    collector = _MARK.sub("", collector_id)
    return f"{collector}/replay-{before.times + 1 if before else 1}/{letter}".lstrip("/")


class Began(msgspec.Struct, tag="began", kw_only=True, frozen=True):
    """A replay that began: `by` (user of the operating system) on `host`, and the letters it was asked for."""

    run: str
    at: str
    by: str
    host: str
    asked: dict[str, str]


class Judged(msgspec.Struct, tag="letter", kw_only=True, frozen=True, omit_defaults=True):
    """What became of one dead letter: `outcome` is `replayed` (it stands in topic `to`), or `refused` by the same checks as before."""

    run: str
    at: str
    dead_letter_id: str
    outcome: str
    to: str | None = None
    events: int = 0
    reason: str | None = None
    detail: str | None = None


class Ended(msgspec.Struct, tag="ended", kw_only=True, frozen=True):
    """A replay that came to its end, with the number of letters by outcome. One that was killed has no such record."""

    run: str
    at: str
    letters: dict[str, int]


Record = Began | Judged | Ended

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


def decode(value: bytes) -> Record:
    """The inverse of `encode`. Raises msgspec.DecodeError (ValidationError included)."""
    return _decoder.decode(value)
