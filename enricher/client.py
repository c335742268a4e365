"""The client of the enrichment API: one request for each batch."""

import math
from collections.abc import Sequence

import httpx
import msgspec

from headrace import metrics
from headrace.dead_letter import Unavailable
from headrace.event import RawEvent


class _Asked(msgspec.Struct):
    id: str
    source: str
    type: str
    time: str
    subject: str | None
    data: msgspec.Raw


class _Request(msgspec.Struct):
    events: list[_Asked]


class _Answer(msgspec.Struct):
    enrichments: list[dict[str, msgspec.Raw]]


class _Score(msgspec.Struct):
    """What every enrichment says of itself; it may say more."""

    model: str
    version: str
    score: float


_NULL = msgspec.Raw(b"null")

_encode = msgspec.json.Encoder().encode
_answer = msgspec.json.Decoder(_Answer)
_score = msgspec.json.Decoder(_Score)


def request_of(events: Sequence[RawEvent]) -> bytes:
    """The body of a scoring request."""
    asked = [_Asked(event.id, event.source, event.type, event.time, event.subject, event.data) for event in events]
    return _encode(_Request(asked))


def enrichments_in(body: bytes, wanted: Sequence[Sequence[str]]) -> list[bytes]:
    """One JSON object for each event from the API's answer: the enrichments that are `wanted` for it, and no others.

    One that the API has none of for this event is null there: the event goes on without it, and NOT_ENRICHED counts it. Raises
    Unavailable where the answer is not what was asked for: such an API is out of order, and the events are not to blame.
    """
    try:
        answers = _answer.decode(body).enrichments
    except msgspec.DecodeError as error:
        raise Unavailable(f"enrichment API: its answer is no list of enrichments: {error}") from error
    if len(answers) != len(wanted):
        raise Unavailable(f"enrichment API: {len(answers)} enrichments for {len(wanted)} events")
    return [_checked(answer, names) for answer, names in zip(answers, wanted, strict=True)]


def _checked(answer: dict[str, msgspec.Raw], names: Sequence[str]) -> bytes:
    parts = []
    for name in names:
        raw = answer.get(name, _NULL)
        if raw == _NULL:
            metrics.NOT_ENRICHED.labels(name).inc()
            parts.append(b'"%b":null' % name.encode())
            continue
        try:
            score = _score.decode(raw).score
        except msgspec.DecodeError as error:
            raise Unavailable(f"enrichment API: {name}: {error}") from error
        if not math.isfinite(score):
            raise Unavailable(f"enrichment API: {name}: score {score} is no finite number")
        parts.append(b'"%b":%b' % (name.encode(), bytes(raw)))
    return b"{" + b",".join(parts) + b"}"


class EnrichmentApi:
    """`score` is the one call. `http` is closed by whoever made it."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def score(self, events: Sequence[RawEvent], wanted: Sequence[Sequence[str]]) -> list[bytes]:
        """One JSON object for each of at most 1,000 `events`, in order. Raises Unavailable for whatever keeps it from that."""
        try:
            response = self._http.post("/v1/score", content=request_of(events), headers={"content-type": "application/json"})
        except httpx.HTTPError as error:
            raise Unavailable(f"enrichment API at {self._http.base_url}: {error or type(error).__name__}") from error
        if response.status_code != httpx.codes.OK:
            raise Unavailable(f"enrichment API at {self._http.base_url}: status {response.status_code}: {response.text[:200]}")
        return enrichments_in(response.content, wanted)
