"""The replay: real purchases by date, at a pace, from where the last one ended; and the sender under it."""

import json
import time
from collections.abc import Sequence
from datetime import date, timedelta
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.registry import Registry
from producers.cdnow.pace import NoSpeed, pace
from producers.cdnow.position import Position
from producers.cdnow.purchases import BadData, Purchase, read_purchases
from producers.cdnow.replay import replay
from producers.client import Collector, GaveUp, Rejected, Reply, RequestRefused, batches
from producers.client.batches import body_of
from producers.client.policy import seconds_of

HEADING = " customer_id date number_of_cds dollar_value"


def _file(folder: Path, *lines: str) -> Path:
    path = folder / "purchases.txt"
    path.write_text("\r\n".join([HEADING, *lines]) + "\r\n")
    return path


def _purchases(count: int) -> list[Purchase]:
    begin = date(1997, 1, 1)
    return [Purchase(number, f"{number % 7:05}", begin + timedelta(days=number // 10), 1, 9.99) for number in range(1, count + 1)]


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.at += seconds


class Sink:
    """Takes everything, and remembers when; `slow` seconds for one request by its number."""

    def __init__(self, clock: Clock, slow: dict[int, float] | None = None) -> None:
        self.clock, self.slow, self.got = clock, slow or {}, list[tuple[float, list[str]]]()

    def send(self, events: Sequence[bytes]) -> Reply:
        self.clock.at += self.slow.get(len(self.got), 0)
        self.got.append((self.clock.at - 100, [json.loads(event)["id"] for event in events]))
        return Reply(len(events))

    @property
    def ids(self) -> list[str]:
        return [id for _, ids in self.got for id in ids]


def _replay(purchases: list[Purchase], speed: str, first: int = 0, slow: dict[int, float] | None = None) -> tuple[Sink, list[int]]:
    clock, positions = Clock(), list[int]()
    sink = Sink(clock, slow)
    due = pace(speed, purchases, first)
    replay(purchases, range(first, len(purchases)), due, collector=sink, sent=lambda at, _: positions.append(at), clock=clock)
    return sink, positions


def test_a_line_becomes_a_valid_event(tmp_path: Path) -> None:
    [purchase] = read_purchases(_file(tmp_path, " 00001 19970101  2   29.33"))
    event = json.loads(purchase.event())
    assert event == {
        "specversion": "1.0",
        "id": "cdnow-000001",
        "source": "cdnow",
        "type": "purchase",
        "time": "1997-01-01T00:00:00Z",
        "subject": "00001",
        "data": {"quantity": 2, "amount_usd": 29.33},
    }
    Registry.load(Path("schemas")).validate("purchase/1-0-0", json.dumps(event["data"]).encode())


def test_purchases_come_by_date_and_those_of_a_day_as_in_the_file(tmp_path: Path) -> None:
    lines = ("00001 19970103 1 1.00", "00002 19970101 1 2.00", "00002 19970103 1 3.00", "00003 19970101 1 4.00")
    assert [(each.number, each.amount_usd) for each in read_purchases(_file(tmp_path, *lines))] == [(2, 2.0), (4, 4.0), (1, 1.0), (3, 3.0)]


@pytest.mark.parametrize("line", ["00001 19970101 1", "00001 19971301 1 2.00", "00001 19970101 1.5 2.00"])
def test_a_line_that_is_no_purchase_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadData, match=r"purchases\.txt, line 3: expected customer, yyyymmdd, items and dollars, found '00001"):
        read_purchases(_file(tmp_path, "00001 19970101 1 2.00", line))


@pytest.mark.parametrize("speed", ["gentle", "max", "0.5", "50", "50events", "3000", "1days", "0.25days"])
def test_every_purchase_is_sent_once_in_order_at_any_speed(speed: str) -> None:
    purchases = _purchases(1234)
    sink, positions = _replay(purchases, speed, first=34)
    assert sink.ids == [purchase.id for purchase in purchases[34:]]
    assert positions[-1] == 1234
    assert positions == sorted(positions)


def test_events_a_second() -> None:
    sink, _ = _replay(_purchases(1000), "20")
    assert sink.got[-1][0] == pytest.approx(50, abs=1)
    assert max(len(ids) for _, ids in sink.got) <= 11


def test_days_a_second() -> None:
    sink, _ = _replay(_purchases(1000), "4days")  # ten a day
    assert sink.got[-1][0] == pytest.approx(25, abs=1)


def test_an_outage_is_not_made_up_for() -> None:
    sink, _ = _replay(_purchases(1000), "20", slow={5: 600.0})
    assert max(len(ids) for _, ids in sink.got) <= 21
    assert sink.got[-1][0] == pytest.approx(650, abs=2)


@pytest.mark.parametrize("speed", ["fast", "", "0", "-5", "7weeks", "nan", "inf"])
def test_what_is_no_speed_is_said(speed: str) -> None:
    with pytest.raises(NoSpeed, match="is no speed: use gentle, max, events a second"):
        pace(speed, _purchases(1), 0)


def test_the_position_is_of_the_data_it_was_written_for(tmp_path: Path) -> None:
    data = _file(tmp_path, "00001 19970101 1 2.00")
    place = Position(tmp_path / "state", data)
    assert place.read() == 0
    place.write(17)
    assert Position(tmp_path / "state", data).read() == 17
    (tmp_path / "state" / "position.json").write_bytes(b"{")
    assert place.read() == 0
    place.write(17)
    assert Position(tmp_path / "state", _file(tmp_path, "00002 19970101 1 2.00")).read() == 0


@given(st.lists(st.binary(max_size=30)), st.integers(1, 5), st.integers(3, 60))
def test_batches_hold_everything_in_order_within_the_limits(events: list[bytes], max_events: int, max_bytes: int) -> None:
    cut = list(batches(events, max_events, max_bytes))
    assert [event for batch in cut for event in batch] == events
    assert all(0 < len(batch) <= max_events and (len(batch) == 1 or len(body_of(batch)) <= max_bytes) for batch in cut)


class Server:
    """Answers as told, one after the other, and remembers what it was asked and what the client waited."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.requests, self.waits = list(answers), list[httpx.Request](), list[float]()

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, patience: float | None = None) -> Collector:
        return Collector("http://collector", "key", patience=patience, sleep=self.waits.append, transport=httpx.MockTransport(self._handle))


def _ok(**reply: object) -> httpx.Response:
    return httpx.Response(200, json={"accepted": 1, "rejected": []} | reply)


def test_a_request_is_a_batch_of_cloud_events_with_the_key_as_user_name() -> None:
    server = Server(_ok(accepted=1, rejected=[{"index": 1, "id": "b", "reason": "unknown_type", "detail": "no such type"}]))
    with server.client() as collector:
        assert collector.send([b'{"id":"a"}', b'{"id":"b"}']) == Reply(1, [Rejected(1, "unknown_type", "no such type", "b")])
    [request] = server.requests
    assert (request.method, request.url.path) == ("POST", "/v1/events")
    assert request.content == b'[{"id":"a"},{"id":"b"}]'
    assert request.headers["content-type"] == "application/cloudevents-batch+json"
    assert request.headers["authorization"] == httpx.BasicAuth("key", "")._auth_header


def test_what_passes_is_tried_again_with_the_same_bytes() -> None:
    error = {"code": "unavailable", "message": "Kafka is away"}
    server = Server(
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503, json=error, headers={"retry-after": "7"}),
        httpx.Response(429, json=error, headers={"retry-after": formatdate(time.time() + 100, usegmt=True)}),
        httpx.Response(502, text="<html>"),
        _ok(),
    )
    assert server.client().send([b"{}"]).accepted == 1
    assert {request.content for request in server.requests} == {b"[{}]"}
    assert len(server.waits) == 5
    assert 0 <= server.waits[0] <= 1
    assert 7 <= server.waits[2] <= 17
    assert 90 <= server.waits[3] <= 110


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415])
def test_what_would_fail_again_is_raised_at_once(status: int) -> None:
    server = Server(httpx.Response(status, json={"code": "c", "message": "what is wrong"}))
    with pytest.raises(RequestRefused, match=rf"the collector answered {status} \(c\): what is wrong"):
        server.client().send([b"{}"])
    assert server.waits == []


def test_patience_has_an_end() -> None:
    server = Server(*[httpx.Response(503, json={"code": "unavailable", "message": "m"}, headers={"retry-after": "60"})] * 9)
    with pytest.raises(GaveUp, match=r"answered 503 \(unavailable\): m \(tried 1 times\)"):
        server.client(patience=30).send([b"{}"])


def test_something_else_that_answers_is_no_collector() -> None:
    with pytest.raises(RequestRefused, match="is no Headrace collector"):
        Server(httpx.Response(200, text="<html>")).client().send([b"{}"])


@pytest.mark.parametrize(("value", "seconds"), [(None, 0), ("", 0), ("3", 3), ("soon", 0), ("999999999", 3600), ("-3", 0)])
def test_retry_after(value: str | None, seconds: float) -> None:
    assert seconds_of(value) == seconds
