"""What the checker sends: events of every class, each with the hash of what must be found of it later. Pure, given the random numbers."""

import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from collector.v1 import collector_pb2 as pb
from headrace.dead_letter import Reason

UNSCORED_TYPE = "verify_unscored"  # of `verify.platform`: it asks for an enrichment that no model gives


class Kind(StrEnum):
    """What must become of an event (`verify.checker.PLAN`)."""

    GOOD = "good"
    ENRICHMENT_FAILS = "enrichment_fails"  # the enrichment API has no score for it: it arrives all the same
    BAD = "bad"  # refused by the collector, event by event
    INVALID = "invalid"  # refused by the enricher
    CONFLICT = "conflict"  # a known id with other content: refused by curation
    ABSURD = "absurd"  # its time cannot be: refused by curation
    UNPARSEABLE = "unparseable"  # a request that is no JSON: its bytes are a dead letter
    REFUSED = "refused"  # good events in a request that is refused as a whole


class Protocol(StrEnum):
    """How a request goes out."""

    REST = "rest"
    GRPC = "grpc"


class Event(NamedTuple):
    """One event to be sent.

    `payload` is what must be found again byte for byte: its data, or the whole text where the collector refuses it.
    `detail` is the type of an event that arrives, and the reason for one that does not.
    """

    id: str
    type: str
    kind: Kind
    detail: str
    text: bytes  # as a CloudEvent in JSON, or a serialized collector.v1.Event
    payload: bytes

    def payload_sha256(self) -> str:
        """Hex, of the payload."""
        return hashlib.sha256(self.payload).hexdigest()

    def search_sha256(self) -> str:
        """Hex, of the payload as JSON in one canonical form: Elasticsearch gives a document back as values, not as bytes."""
        if self.kind not in _FOUND_AS_EVENT:
            return self.payload_sha256()
        return hashlib.sha256(canonical(self.payload).encode()).hexdigest()


_SPELT = re.compile(r"\\u[0-9a-f]{4}|[\U00010000-\U0010ffff]")


def canonical(text: bytes) -> str:
    """JSON `text` as Trino's `json_format(json_parse(…))` writes it: keys sorted, no spaces, escapes in upper case."""
    plain = json.dumps(json.loads(text), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return _SPELT.sub(lambda found: _escaped(found[0]), plain)


def _escaped(found: str) -> str:
    if found[0] == "\\":
        return "\\u" + found[2:].upper()
    units = found.encode("utf-16-be")
    return "".join(f"\\u{units[place : place + 2].hex().upper()}" for place in (0, 2))


_FOUND_AS_EVENT = (Kind.GOOD, Kind.ENRICHMENT_FAILS, Kind.ABSURD, Kind.CONFLICT)


class Request(NamedTuple):
    """Events that go out together. `refusal` says how a request of Kind.REFUSED is spoilt: the status that must come."""

    protocol: Protocol
    events: Sequence[Event]
    refusal: int = 0

    def body(self) -> bytes:
        """What is sent."""
        if self.protocol is Protocol.GRPC:
            return pb.PublishRequest(events=[pb.Event.FromString(event.text) for event in self.events]).SerializeToString()
        if self.events[0].kind is Kind.UNPARSEABLE:
            return self.events[0].text
        return b"[" + b",".join(event.text for event in self.events) + b"]"


# Shares of requests (of the first four: of events in a request).
_BAD, _INVALID, _ABSURD, _UNSCORED = 0.03, 0.03, 0.01, 0.05
_UNPARSEABLE, _REFUSED, _CONFLICT = 0.01, 0.02, 0.01
RESENT = 0.03  # of events, 1 to 5 %
_REMEMBERED = 5000
_LARGEST_REQUEST = 40
_ODD_TEXTS = ("plain", "größe", "🚀 rocket", "tab\tnew\nline", 'quote " and \\', "\x01\x1f", "a\u0000b", "日本語", " spaces ")


def source_of(run: str) -> str:
    """The source of all events of a run."""
    return f"verify/{run}"


class Factory:
    """Makes requests from the random numbers of `seed`. Ids begin with `run`, and none is made twice."""

    def __init__(self, run: str, seed: int) -> None:
        self._run = run
        self._source = source_of(run)
        self._random = random.Random(seed)
        self._made = 0
        self._acknowledged: deque[Event] = deque(maxlen=_REMEMBERED)
        self._in_conflict: set[str] = set()

    def acknowledged(self, request: Request) -> None:
        """Tell that `request` was answered with success: its events may be sent again, or with other content."""
        self._acknowledged.extend(event for event in request.events if event.kind in (Kind.GOOD, Kind.ENRICHMENT_FAILS))

    def request(self) -> Request:
        """The next one."""
        rand = self._random
        protocol = rand.choice((Protocol.REST, Protocol.REST, Protocol.GRPC))
        chance = rand.random()
        if chance < _UNPARSEABLE:
            return Request(Protocol.REST, [self._unparseable()])
        many = rand.randint(1, _LARGEST_REQUEST)
        if chance < _UNPARSEABLE + _REFUSED:
            return Request(protocol, [self._good(protocol, Kind.REFUSED) for _ in range(many)], self._refusal(protocol))
        if chance < _UNPARSEABLE + _REFUSED + _CONFLICT and (conflict := self._conflict(protocol)):
            return Request(protocol, [conflict])
        return Request(protocol, [self._again(protocol) or self._new(protocol) for _ in range(many)])

    def _refusal(self, protocol: Protocol) -> int:
        return 401 if protocol is Protocol.GRPC else self._random.choice((401, 413, 415))

    def _new(self, protocol: Protocol) -> Event:
        chance = self._random.random()
        if chance < _BAD:
            return self._bad(protocol)
        if chance < _BAD + _INVALID:
            return self._invalid(protocol)
        if chance < _BAD + _INVALID + _ABSURD:
            return self._good(protocol, Kind.ABSURD)
        return self._good(protocol, Kind.ENRICHMENT_FAILS if self._random.random() < _UNSCORED else Kind.GOOD)

    def _again(self, protocol: Protocol) -> Event | None:
        if not self._acknowledged or self._random.random() >= RESENT:
            return None
        before = self._random.choice(self._acknowledged)
        return self._event(protocol, before.id, before.type, before.kind, before.type, before.payload)

    def _conflict(self, protocol: Protocol) -> Event | None:
        if not self._acknowledged:
            return None
        before = self._random.choice(self._acknowledged)
        if before.id in self._in_conflict:  # one other content for each id, so that the account stays plain
            return None
        self._in_conflict.add(before.id)
        data = _data(self._random, before.type, f"{before.id}-other")
        return self._event(protocol, before.id, before.type, Kind.CONFLICT, Reason.ID_CONFLICT, data)

    def _good(self, protocol: Protocol, kind: Kind) -> Event:
        id, type = self._id(), self._random.choice(("purchase", "page_view", "login"))
        if kind is Kind.ENRICHMENT_FAILS:
            type = UNSCORED_TYPE
        detail = Reason.INVALID_ATTRIBUTE.value if kind is Kind.ABSURD else type
        time = "1971-01-01T00:00:00Z" if kind is Kind.ABSURD else None
        return self._event(protocol, id, type, kind, detail, _data(self._random, type, id), time=time)

    def _bad(self, protocol: Protocol) -> Event:
        id, data = self._id(), b'{"url":"http://shop.example/"}'
        reason = self._random.choice((Reason.UNKNOWN_TYPE, Reason.UNKNOWN_SCHEMA, Reason.MISSING_ATTRIBUTE, Reason.INVALID_ATTRIBUTE))
        match reason:
            case Reason.UNKNOWN_TYPE:
                return self._event(protocol, id, "no_such_type", Kind.BAD, reason, data)
            case Reason.UNKNOWN_SCHEMA:
                return self._event(protocol, id, "page_view", Kind.BAD, reason, data, dataschema="page_view/9-9-9")
            case Reason.MISSING_ATTRIBUTE:
                return self._event(protocol, id, "", Kind.BAD, reason, data)
            case _:
                return self._event(protocol, id, "page_view", Kind.BAD, reason, data, time="yesterday")

    def _invalid(self, protocol: Protocol) -> Event:
        id = self._id()
        data = self._random.choice((b'{"url": 7, "text": "gr\xc3\xb6\xc3\x9fe"}', b'{"title":"\\u00e9 no url"}', b'{ "url" : null }'))
        return self._event(protocol, id, "page_view", Kind.INVALID, Reason.SCHEMA_INVALID, data)

    def _unparseable(self) -> Event:
        id = self._id()
        text = f'{{"id":"{id}","type":"page_view", "data": {{'.encode()
        return Event(id, "page_view", Kind.UNPARSEABLE, Reason.UNPARSEABLE.value, text, text)

    def _id(self) -> str:
        self._made += 1
        return f"{self._run}-{self._made:08}"

    def _event(
        self,
        protocol: Protocol,
        id: str,
        type: str,
        kind: Kind,
        detail: str,
        data: bytes,
        time: str | None = None,
        dataschema: str | None = None,
    ) -> Event:
        attributes = {"id": id, "source": self._source, "type": type, "subject": "customer-7"}
        attributes |= {name: value for name, value in (("time", time), ("dataschema", dataschema)) if value is not None}
        if protocol is Protocol.GRPC:
            text = pb.Event(**attributes, json=data).SerializeToString()  # type: ignore[arg-type]
        else:
            text = json.dumps({"specversion": "1.0", **attributes})[:-1].encode() + b', "data":' + data + b"}"
        return Event(id, type, kind, detail, text, text if kind is Kind.BAD else data)


def _data(rand: random.Random, type: str, mark: str) -> bytes:
    """JSON text of data that is valid for `type` and like no other's, in one of several spellings."""
    odd = rand.choice(_ODD_TEXTS)
    match type:
        case "purchase":
            data: dict[str, object] = {
                "quantity": rand.randint(1, 9),
                "amount_usd": rand.randint(100, 99_999) / 100,
                "order_id": mark,
                "note": odd,
            }
        case "login":
            data = {"method": rand.choice(("password", "google", "sso")), "session_id": mark, "extra": {"text": odd, "n": [1, None, True]}}
        case _:
            data = {"url": f"https://shop.example/p/{mark}", "title": odd}
    match rand.randrange(3):
        case 0:
            return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
        case 1:
            return json.dumps(data).encode()  # with escapes
        case _:
            return json.dumps(data, ensure_ascii=False, indent=1).encode()
