"""What is asked of the enrichment API, what an answer may be, and what an event says of either. Pure."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, NamedTuple

import msgspec

from headrace import metrics
from headrace.dead_letter import Unavailable
from headrace.event import RawEvent
from headrace.registry import SKIPPED, Need

_Name = Annotated[str, msgspec.Meta(max_length=200)]
_Finite = Annotated[float, msgspec.Meta(ge=-1.7e308, le=1.7e308)]  # JSON may say 1e999, which is an infinity to a float


class Enrichment(msgspec.Struct, omit_defaults=True, gc=False):
    """One enrichment as every store behind knows it (docs/architecture.md); what else the API says of it is left out."""

    model: _Name
    version: _Name
    score: _Finite
    features: _Name | None = None
    variant: _Name | None = None


Answer = Mapping[str, Enrichment | None]  # by name; without those that the API has none of for this event


class Why(StrEnum):
    """Every reason for which an event has no enrichment though the plan wants one. Closed: a new one is added here, with its meaning."""

    NO_ANSWER = "no_answer"  # the connection was refused or cut, or what came was no HTTP
    LATE = "late"  # not all was there at the deadline
    STATUS = "status"  # a status other than 200
    BAD_ANSWER = "bad_answer"  # not the JSON that docs/architecture.md says, for as many events as were asked about
    CIRCUIT_OPEN = "circuit_open"  # it failed again and again, so it was not asked


class Failure(NamedTuple):
    """No answer for an event. `detail` tells a person what happened."""

    why: Why
    detail: str


class _Asked(msgspec.Struct):
    id: str
    source: str
    type: str
    time: str
    subject: str | None
    data: msgspec.Raw


class _Request(msgspec.Struct):
    events: list[_Asked]


class _Answers(msgspec.Struct):
    enrichments: list[dict[str, Enrichment | None]]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Answers).decode


def request_of(events: Sequence[RawEvent]) -> bytes:
    """The body of a scoring request."""
    asked = [_Asked(event.id, event.source, event.type, event.time, event.subject, event.data) for event in events]
    return _encode(_Request(asked))


def answers_in(body: bytes | bytearray, count: int) -> list[dict[str, Enrichment | None]] | Failure:
    """The answers for `count` events, in order; a Failure where `body` is anything else: such an API is out of order."""
    try:
        answers = _decode(body).enrichments
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(Why.BAD_ANSWER, f"its answer is no list of enrichments: {error}")
    if len(answers) != count:
        return Failure(Why.BAD_ANSWER, f"{len(answers)} enrichments for {count} events")
    return answers


def enrichment_of(needs: Mapping[str, Need], answer: Answer | Failure) -> bytes:
    """One JSON object: a member for each name in `needs`, null where there is none, and no others.

    Where that is so because the API failed, a member `enrichment_skipped` gives the reason by name: {"repurchase": "late"}; raises
    Unavailable then where one of them is required. Where the API answered that it has none, there is only the null. Both are counted.
    """
    if isinstance(answer, Failure):
        if "required" in needs.values():
            raise Unavailable(f"enrichment API: {answer.detail}")
        for name in needs:
            metrics.ENRICHMENT_SKIPPED.labels(name, answer.why.value).inc()
        return _encode({**dict.fromkeys(needs), SKIPPED: dict.fromkeys(needs, answer.why)})
    said = {name: answer.get(name) for name in needs}
    for name, enrichment in said.items():
        if enrichment is None:
            metrics.NOT_ENRICHED.labels(name).inc()
    return _encode(said)
