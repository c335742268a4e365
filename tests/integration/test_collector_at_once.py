"""A request whose head came before is served by a shorter way (`Rest.at_once`): it must be answered, and written, as the first one was."""

import asyncio
import base64
import gzip
import http.client
import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from collector import rest
from collector.accept import Limits
from collector.admission import Admission
from collector.fast import Fast
from collector.http import Answer, Head, Request
from collector.intake import Intake
from collector.line import Keyed, Line, Waiting
from collector.outbox import Outbox
from collector.rest import Rest
from collector.senders import Senders
from headrace import dead_letter, event, keyfile, keys
from headrace.dead_letter import DeadLetter
from headrace.event import RawEvent
from headrace.registry import Registry
from tests.collector_mock_kafka import mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT

DEAD = "dead-letter.collector"
EVENT = {"specversion": "1.0", "type": "login", "source": "s", "subject": "u", "data": {}}
JSON, ONE, MANY = "application/json", "application/cloudevents+json", "application/cloudevents-batch+json"
BASIC = "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()

BEACON = b',"writeKey":"%b"}' % KEY.encode()


def one(id: str, **changes: Any) -> bytes:
    return json.dumps(EVENT | {"id": id} | changes).encode()


def many(id: str, *changes: dict[str, Any]) -> bytes:
    return json.dumps([EVENT | {"id": f"{id}-{place}"} | change for place, change in enumerate(changes)]).encode()


def calls(id: str, *changes: dict[str, Any]) -> bytes:
    track = {"type": "track", "event": "login", "userId": "u", "properties": {}}
    return json.dumps({"batch": [track | {"messageId": f"{id}-{place}"} | change for place, change in enumerate(changes)]}).encode()


# name: path, headers, body
REQUESTS: dict[str, tuple[str, dict[str, str], bytes]] = {
    "one": ("/v1/events", {"content-type": ONE}, one("one")),
    "one as json": ("/v1/events", {"content-type": JSON}, one("one-json")),
    "one with white space": ("/v1/events", {"content-type": JSON}, b" \n" + one("white")),
    "many": ("/v1/events", {"content-type": MANY}, many("many", {}, {}, {})),
    "many as json": ("/v1/events", {"content-type": JSON}, many("many-json", {}, {})),
    "many with an odd one": ("/v1/events", {"content-type": MANY}, many("many-odd", {}, {"data": {"a": "\0"}})),
    "many after white space": ("/v1/events", {"content-type": JSON}, b"\n" + many("many-white", {}, {})),
    "none": ("/v1/events", {"content-type": MANY}, b"[]"),
    "no content type": ("/v1/events", {}, one("bare")),
    "a charset": ("/v1/events", {"content-type": f"{JSON}; charset=utf-8"}, one("charset")),
    "some bad": ("/v1/events", {"content-type": MANY}, many("some", {}, {"type": "nonsense"}, {})),
    "all bad": ("/v1/events", {"content-type": ONE}, one("bad", time="yesterday")),
    "another key's source": ("/v1/events", {"content-type": ONE, "authorization": "bound"}, one("foreign", source="other")),
    "a bound key": ("/v1/events", {"content-type": ONE, "authorization": "bound"}, one("bound", source="bound")),
    "no JSON": ("/v1/events", {"content-type": ONE}, b"{"),
    "wrong form": ("/v1/events", {"content-type": ONE}, many("form", {})),
    "too many": ("/v1/events", {"content-type": MANY}, many("too-many", *[{}] * 501)),
    "wrong media type": ("/v1/events", {"content-type": "text/html"}, one("media")),
    "wrong charset": ("/v1/events", {"content-type": f"{JSON}; charset=latin-1"}, one("latin")),
    "no key": ("/v1/events", {"content-type": ONE, "authorization": ""}, one("no-key")),
    "wrong key": ("/v1/events", {"content-type": ONE, "authorization": "Bearer nobody"}, one("wrong-key")),
    "key in the query": (f"/v1/events?writeKey={KEY}", {"content-type": ONE, "authorization": ""}, one("query")),
    "binary": ("/v1/events", {"content-type": JSON, **{f"ce-{k}": str(v) for k, v in EVENT.items() if k != "data"}, "ce-id": "b"}, b"{}"),
    "gzip": ("/v1/events", {"content-type": ONE, "content-encoding": "gzip"}, gzip.compress(one("gzip"), mtime=0)),
    "a page": ("/v1/events", {"content-type": ONE, "origin": "http://shop.example"}, one("page")),
    "a foreign page": ("/v1/events", {"content-type": ONE, "origin": "http://evil.example"}, one("evil")),
    "segment": ("/v1/batch", {"content-type": JSON}, calls("segment", {}, {})),
    "segment with one bad": ("/v1/batch", {"content-type": JSON}, calls("segment-bad", {}, {"event": "nonsense"})),
    "a beacon": ("/v1/batch", {"content-type": "text/plain", "authorization": ""}, calls("b", {})[:-1] + BEACON),
    "a call": ("/v1/track", {"content-type": JSON}, json.dumps({"event": "login", "userId": "u", "messageId": "call"}).encode()),
    "otlp": ("/v1/logs", {"content-type": JSON}, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1"}]}]}]}'),
    "elsewhere": ("/v1/nothing", {"content-type": ONE}, one("elsewhere")),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[CollectorProcess, str]]:
    folder = tmp_path_factory.mktemp("at-once")
    key, text = keys.make(source="bound", types=["login"], made_at=event.now())
    keyfile.change(folder / "keys.json", lambda made: keys.with_key(made, key))
    with mock_kafka() as broker, collector(broker.address, folder, COLLECTOR_KEY_EVENTS_PER_SECOND="1000000") as running:
        running.wait()
        yield running, text


def asked(server: tuple[CollectorProcess, str], name: str, connection: http.client.HTTPConnection, **more: str) -> tuple[int, Any, Any]:
    """Status, body without what is new each time, and the headers of an answer."""
    path, headers, body = REQUESTS[name]
    authorization = headers.get("authorization", BASIC).replace("bound", f"Bearer {server[1]}")
    sent = {**headers, **more, "authorization": authorization}
    connection.request("POST", path, body, {key: value for key, value in sent.items() if value})
    answer = connection.getresponse()
    said = json.loads(answer.read() or b"null")
    return answer.status, said, {key: value for key, value in answer.getheaders() if key != "date"}


def test_the_same_head_again_has_the_same_answer_and_the_same_messages(server: tuple[CollectorProcess, str]) -> None:
    running = server[0]
    accepted = rejected = refused = 0
    for name in REQUESTS:
        connection = http.client.HTTPConnection(running.rest.removeprefix("http://"))
        answers = [asked(server, name, connection, **({"x-other": "1"} if turn == 0 else {})) for turn in range(4)]
        connection.close()
        assert answers[1:] == answers[:1] * 3, name
        status, said, _ = answers[0]
        accepted += said.get("accepted", 0)
        rejected += len(said.get("rejected", ()))
        refused += status == 400
    raw = Counter(map(known_by, map(event.decode_raw, (value for _, value in running.written(event.RAW_TOPIC)))))
    letters = Counter(map(told_by, map(dead_letter.decode, (value for _, value in running.written(DEAD)))))
    assert {what: count for what, count in (*raw.items(), *letters.items()) if count % 4} == {}
    assert (raw.total(), letters.total()) == (4 * (accepted + 1), 4 * (rejected + refused)), (
        "a call is one event, and its answer does not count"
    )


def known_by(one: RawEvent) -> tuple[object, ...]:
    """All but the moment."""
    return one.id, one.source, one.type, one.time == one.received_at, one.subject, one.dataschema, bytes(one.data), one.receipt


def told_by(one: DeadLetter) -> tuple[object, ...]:
    """All but the moment and the number."""
    return one.reason, one.detail, one.payload, one.id, one.source, one.type, one.key_id


AT_ONCE = {
    *(
        "one",
        "one as json",
        "many",
        "many as json",
        "one with white space",
        "no content type",
        "a charset",
        "a bound key",
        "key in the query",
        "a page",
    ),
    *("segment",),
}


class _Kept(Line):
    """Takes messages, and says nothing of them."""

    def __init__(self) -> None:
        super().__init__({})
        self.taken: list[Keyed] = []

    def _counts(self) -> Mapping[str, int]:
        return {}

    def produce(self, topic: str, keyed: Sequence[Keyed], request: Waiting) -> None:  # noqa: ARG002 - as it is declared
        self.taken += keyed

    def poll(self) -> None: ...
    def flush(self, seconds: float) -> None: ...
    def dispose(self) -> None: ...


def test_which_requests_go_the_shorter_way() -> None:
    asyncio.run(_which())


async def _which() -> None:
    registry, limits, outbox = Registry.load(ROOT / "schemas"), Limits(), Outbox("", deadline=1, max_bytes=10_000_000)
    senders = Senders({KEY: "src"}, "c", "p", origins=["http://shop.example"])
    key, text = keys.make(source="bound", types=["login"], made_at=event.now())
    senders.use([key])
    app = Rest(Intake(registry, limits, senders, outbox, Admission(10_000_000), fast=Fast(registry, limits)), max_body=4_000_000)
    taken = set()
    for name, (target, headers, body) in REQUESTS.items():
        outbox._line = line = _Kept()
        given = {"authorization": BASIC, **headers}
        given["authorization"] = given["authorization"].replace("bound", f"Bearer {text}")
        path, _, query = target.partition("?")
        request = Request("POST", path, query.encode(), {k: v for k, v in given.items() if v}, body, "127.0.0.1")
        answers: list[Answer] = []
        if app.at_once(request._replace(head=Head(request, target.encode())), answers.append):
            taken.add(name)
            assert answers == []
            line.abandon("it broke")
            assert [answer.status for answer in answers] == [503]
        else:
            assert (line.taken, line.waiting) == ([], deque()), "it is left untouched"
    assert taken == AT_ONCE
    request = Request("POST", rest.EVENTS, b"", {"authorization": BASIC}, REQUESTS["one"][2], None)
    request = request._replace(head=Head(request, b"/v1/events"))
    assert app.at_once(request, answers.append)
    senders._ready_made = ()
    senders.use([])
    assert not app.at_once(request, answers.append), "a key that is gone is unknown at once"
