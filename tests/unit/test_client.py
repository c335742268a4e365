"""The SDK against collectors that misbehave as told: nothing is lost, nothing is asked for in vain, and the caller hears of it."""

import asyncio
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.client import AsyncClient, Client, Event, GaveUp, InvalidEvent, QueueFull, RequestRefused, SpoolTaken, policy
from producers.client.backlog import Backlog, Batch
from producers.client.batches import body_of
from producers.client.events import event_text, new_id, read_event
from producers.client.spool import Spool
from tests.scripted_collectors import Answer, Events, error, ok, scripted

KINDS = pytest.mark.parametrize("kind", ["rest", "grpc"])
PURCHASE = {"quantity": 1, "amount_usd": 9.99}


def client_of(kind: str, address: str, **options: Any) -> Client:
    defaults: dict[str, Any] = {"source": "shop", "transport": kind, "linger": 0.01, "block_seconds": None}
    return Client(address, "key", **defaults | options)


def fill(client: Client) -> int:
    """How many events it takes."""
    for number in count():
        try:
            client.track("purchase", PURCHASE)
        except QueueFull:
            return number
    raise AssertionError


def ids(requests: list[Events]) -> list[str]:
    return [event["id"] for events in requests for event in events]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FIRST_WAIT", 0.01)


# ---- events
@given(st.integers(1, 40))
def test_ids_are_of_version_7_and_sort_by_time(many: int) -> None:
    made = [uuid.UUID(new_id()) for _ in range(many)]
    assert {(id.version, id.variant) for id in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == many
    millis = [id.int >> 80 for id in made]
    assert millis == sorted(millis)
    assert abs(millis[-1] / 1000 - time.time()) < 60


def test_an_event_is_a_cloud_event_with_its_time_in_utc() -> None:
    moment = datetime(2026, 1, 31, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    text = event_text("purchase", PURCHASE, id="1", source="shop", subject="c", time=moment, schema_ref="purchase/1-0-0")
    assert msgspec.json.decode(text) == {
        "specversion": "1.0",
        "id": "1",
        "source": "shop",
        "type": "purchase",
        "time": "2026-01-31T12:00:00.000Z",
        "subject": "c",
        "dataschema": "purchase/1-0-0",
        "data": PURCHASE,
    }
    now = datetime.fromisoformat(read_event(event_text("purchase", {}, id="1", source="shop")).time)
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([1], "the data of an event is a JSON object, not list"),
        ("text", "not str"),
        ({"a": object()}, "cannot be written as JSON"),
        ({"a": "\ud800"}, "cannot be written as JSON"),
    ],
)
def test_what_is_no_event_is_said_at_once(data: Any, says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        event_text("purchase", data, id="1", source="shop")


def test_arguments_that_do_not_fit_are_said_at_once() -> None:
    with pytest.raises(ValueError, match="must be a URL such as"):
        Client("127.0.0.1:8000", "key", source="shop")
    with pytest.raises(ValueError, match="must be host:port"):
        Client("http://127.0.0.1:8000", "key", source="shop", transport="grpc")
    for target in ("http://", "https:///v1", "ftp://host", ""):
        with pytest.raises(ValueError, match="must be a URL such as"):
            Client(target, "key", source="shop")
    for target in ("localhost", "", "host:port"):
        with pytest.raises(ValueError, match="must be host:port"):
            Client(target, "key", source="shop", transport="grpc")
    for key in ("", "key\n", "schlüssel"):
        with pytest.raises(ValueError, match="a write key is of printable ASCII"):
            Client("http://127.0.0.1:8000", key, source="shop")
    with pytest.raises(FileNotFoundError):
        Client("https://127.0.0.1:8000", "key", source="shop", ca_file="no-such-file")
    with pytest.raises(ValueError, match="durable=True needs a spool_dir"):
        Client("http://127.0.0.1:8000", "key", source="shop", durable=True)
    with pytest.raises(InvalidEvent, match="time has no time zone"):
        event_text("purchase", {}, id="1", source="shop", time=datetime(2026, 1, 1))
    with (
        Client("http://127.0.0.1:8000", "key", source="shop") as client,
        pytest.raises(InvalidEvent, match="no request may have more than 480000"),
    ):
        client.track("purchase", {"text": "x" * 500_000})


# ---- the schedule
@given(st.integers(1, 10_000), st.floats(0, 3600))
def test_waits_are_within_their_bounds(attempt: int, asked: float) -> None:
    wait = policy.backoff(attempt, asked)
    assert asked <= wait <= asked + min(policy.LONGEST_WAIT, policy.FIRST_WAIT * 2 ** min(attempt, 10))


def test_waits_are_spread_over_the_whole_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "FIRST_WAIT", 1.0)
    drawn = [policy.backoff(3) for _ in range(2000)]
    assert min(drawn) < 1
    assert max(drawn) > 7


@pytest.mark.parametrize(
    ("what", "statuses"),
    [("again", (0, 408, 425, 429, 500, 502, 503, 504, 599)), ("split", (400, 413, 422)), ("hold", (200, 301, 401, 403, 404, 405, 415))],
)
def test_what_to_do_after_a_status(what: str, statuses: tuple[int, ...]) -> None:
    assert {policy.verdict(status) for status in statuses} == {what}


# ---- the backlog
def backlog(spool: Spool | None = None, **changes: Any) -> Backlog:
    limits = {"max_events": 20, "max_bytes": 500, "batch_events": 7, "batch_bytes": 100, "linger": 0.0, "durable": False}
    return Backlog(spool, **limits | changes)


@given(st.lists(st.integers(0, 90), max_size=60), st.integers(1, 10), st.integers(95, 300))
def test_batches_hold_everything_in_order_within_the_limits(sizes: list[int], most: int, most_bytes: int) -> None:
    texts = [b"%04d" % number + b"x" * size for number, size in enumerate(sizes)]
    one, taken = backlog(max_events=100, max_bytes=10**6, batch_events=most, batch_bytes=most_bytes), list[Batch]()
    for text in texts:
        one.put(text)
    while batch := one.take():
        taken.append(batch)
    assert [text for batch in taken for text in batch.texts] == texts
    assert all(len(batch.texts) <= most and (len(batch.texts) == 1 or len(body_of(batch.texts)) <= most_bytes) for batch in taken)
    assert one.left(one.handed) == len(texts)
    for batch in taken:
        one.done(batch)
    assert one.left(one.handed) == 0


@given(st.lists(st.one_of(st.integers(1, 30), st.none()), max_size=40))
def test_what_overflows_to_disk_keeps_its_place(tmp_path_factory: pytest.TempPathFactory, steps: list[int | None]) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"), 1_000_000)
    one, sent, got = backlog(spool), list[bytes](), list[bytes]()
    for step in [*steps, *[None] * 400]:
        if step is None:
            if batch := one.take():
                got += batch.texts
                one.done(batch)
        else:
            for _ in range(step):
                sent.append(b"%05d" % len(sent))
                one.put(sent[-1])
    assert got == sent
    assert (one.left(one.handed), spool.records) == (0, 0)
    one.close([])


@pytest.mark.parametrize("durable", [False, True])
def test_a_disk_that_fails_to_sync_is_told_and_the_counts_stay_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    spool = Spool(tmp_path, 1_000_000)
    spool.append([b"before"])
    one = backlog(spool, max_events=3, durable=durable)
    put = [b"before", *[b"%d" % number for number in range(3)]]
    for text in put[1:]:
        one.put(text)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        one.put(b"3")
    monkeypatch.undo()
    got: list[bytes] = []
    while batch := one.take():
        got += batch.texts
        one.done(batch)
    assert got == ([*put, b"3"] if durable else put)
    assert (one.handed, one.settled, spool.records) == (len(got), len(got), 0)
    one.close([])


def test_a_full_queue_takes_no_more_and_says_so() -> None:
    one = backlog(max_bytes=50)
    one.put(b"x" * 40)
    with pytest.raises(QueueFull, match=r"1 events \(41 bytes\) wait to be sent"):
        one.put(b"y" * 40)


def test_events_linger_unless_there_are_enough_or_somebody_waits() -> None:
    one = backlog(linger=1000.0, max_events=100, max_bytes=10_000)
    one.put(b"a")
    assert one.take() is None
    assert 900 < (one.due_in() or 0) <= 1000
    for _ in range(6):
        one.put(b"b")
    assert one.take() == Batch([b"a", *[b"b"] * 6])
    one.put(b"c")
    assert one.take() is None
    one.hurry()
    assert one.take() == Batch([b"c"])


# ---- sending
@KINDS
def test_events_arrive_in_order_in_few_requests(kind: str) -> None:
    with scripted(kind, lambda _, events: ok(events)) as server, client_of(kind, server.address, linger=1000) as client:
        sent = [client.track("purchase", PURCHASE | {"order_id": str(number)}, subject="c1") for number in range(2300)]
        assert client.flush(60) == 0
        assert ids(server.requests) == sent
        assert [len(events) for events in server.requests] == [500, 500, 500, 500, 300]
        event = server.requests[0][0]
        assert (event["type"], event["source"], event["subject"], event["data"]) == ("purchase", "shop", "c1", PURCHASE | {"order_id": "0"})
        assert client.stats()[:5] == (2300, 0, 0, 0, 0)


def test_a_request_is_what_the_collector_expects() -> None:
    with scripted("rest", lambda _, events: ok(events)) as server, client_of("rest", server.address) as client:
        client.track("purchase", PURCHASE)
        client.flush(30)
        client.track("purchase", PURCHASE | {"order_id": "x" * 2000})
        client.flush(30)
    small, large = server.headers
    assert (small["path"], small["content-type"]) == ("/v1/events", "application/cloudevents-batch+json")
    assert small["authorization"] == "Basic a2V5Og=="
    assert small["user-agent"].startswith("headrace-python/")
    assert ("content-encoding" in small, large["content-encoding"]) == (False, "gzip")
    assert int(large["content-length"]) < 500


@KINDS
def test_what_passes_is_tried_again_until_it_is_taken(kind: str) -> None:
    trouble: dict[int, Answer | None] = {
        0: None,
        1: error(503, "UNAVAILABLE"),
        2: error(429, "RESOURCE_EXHAUSTED", retry_after="0"),
        3: error(500, "INTERNAL"),
    }
    with (
        scripted(kind, lambda number, events: trouble[number] if number in trouble else ok(events)) as server,
        client_of(kind, server.address) as client,
    ):
        sent = [client.track("purchase", PURCHASE) for _ in range(600)]
        assert client.flush(60) == 0
        assert list(dict.fromkeys(server.taken)) == sent
        assert (client.stats().accepted, client.stats().retried) == (600, 4)


@KINDS
def test_retry_after_is_waited_for(kind: str) -> None:
    times: list[float] = []

    def answers(number: int, events: Events) -> Answer:
        times.append(time.monotonic())
        return ok(events) if number else error(503, "UNAVAILABLE", retry_after="1")

    with scripted(kind, answers) as server, client_of(kind, server.address) as client:
        client.track("purchase", PURCHASE)
        assert client.flush(60) == 0
    assert len(times) == 2
    assert times[1] - times[0] >= 1


@KINDS
def test_the_place_of_a_lost_request_is_kept(kind: str) -> None:
    """Some replies of many under way get lost: what follows is sent again after it, and every event is taken once in order at last."""
    lost = {2, 3, 7, 11}
    with (
        scripted(kind, lambda number, events: None if number in lost else ok(events)) as server,
        client_of(kind, server.address, max_batch_events=10, in_flight=8 if kind == "grpc" else 1) as client,
    ):
        sent = [client.track("purchase", PURCHASE) for _ in range(400)]
        assert client.flush(60) == 0
    assert list(dict.fromkeys(server.taken)) == sent


@KINDS
def test_an_event_refused_for_good_is_told_and_the_others_are_taken(kind: str) -> None:
    told: list[tuple[Event, str, str]] = []

    def answers(_: int, events: Events) -> Answer:
        return ok(events, [(index, "unknown_type") for index, event in enumerate(events) if event["type"] == "wish"])

    def tell(event: Event, reason: str, detail: str) -> None:
        told.append((event, reason, detail))
        raise RuntimeError("what the caller does wrong does not stop the client")

    with scripted(kind, answers) as server, client_of(kind, server.address, on_rejected=tell) as client:
        for number in range(30):
            client.track("wish" if number % 10 == 3 else "purchase", {"number": number})
        assert client.flush(60) == 0
        assert client.stats()[:2] == (27, 3)
    assert [(msgspec.json.decode(event.data), reason, detail) for event, reason, detail in told] == [
        ({"number": number}, "unknown_type", "as the test says") for number in (3, 13, 23)
    ]


@pytest.mark.parametrize(("kind", "status", "code"), [("rest", 413, "too_large"), ("grpc", 413, "INVALID_ARGUMENT")])
def test_a_request_that_is_too_large_is_cut(kind: str, status: int, code: str) -> None:
    with (
        scripted(kind, lambda _, events: ok(events) if len(events) <= 70 else error(status, code)) as server,
        client_of(kind, server.address, linger=0.2) as client,
    ):
        sent = [client.track("purchase", PURCHASE) for _ in range(1500)]
        assert client.flush(60) == 0
        assert list(dict.fromkeys(server.taken)) == sent
        assert client.stats().rejected == 0


@pytest.mark.parametrize(
    ("kind", "code", "told"), [("rest", "unparseable", "unparseable"), ("grpc", "INVALID_ARGUMENT", "invalid_argument")]
)
def test_an_event_that_spoils_its_request_is_found_and_told(kind: str, code: str, told: str) -> None:
    refused: list[tuple[str, str]] = []

    def answers(_: int, events: Events) -> Answer:
        return error(400, code) if any(event["subject"] == "bad" for event in events) else ok(events)

    with (
        scripted(kind, answers) as server,
        client_of(kind, server.address, on_rejected=lambda event, reason, _: refused.append((event.id, reason))) as client,
    ):
        sent = [client.track("purchase", PURCHASE, subject="bad" if number == 77 else "c") for number in range(200)]
        assert client.flush(60) == 0
    assert refused == [(sent[77], told)]
    assert list(dict.fromkeys(server.taken)) == sent[:77] + sent[78:]


@KINDS
def test_a_wrong_key_is_told_and_nothing_is_lost_once_it_is_mended(kind: str) -> None:
    mended, errors = threading.Event(), list[RequestRefused]()
    code = "unauthorized" if kind == "rest" else "UNAUTHENTICATED"
    with (
        scripted(kind, lambda _, events: ok(events) if mended.is_set() else error(401, code)) as server,
        client_of(kind, server.address, on_error=errors.append, hold_seconds=0.2) as client,
    ):
        sent = [client.track("purchase", PURCHASE) for _ in range(30)]
        with pytest.raises(RequestRefused, match="the collector answered 401"):
            client.flush(60)
        assert errors[0].status == 401
        assert "401" in str(client.stats().problem)
        mended.set()
        while client.stats().queued:
            time.sleep(0.02)
        assert client.stats().problem is None
        assert client.flush(60) == 0
    assert server.taken == sent


def test_who_is_no_collector_is_told() -> None:
    with scripted("rest", lambda *_: (200, {"hello": "world"}, {})) as server:
        client = client_of("rest", server.address)
        client.track("purchase", PURCHASE)
        with pytest.raises(RequestRefused, match="is no Headrace collector"):
            client.flush(60)
        with pytest.raises(GaveUp, match="1 events were not acknowledged before the client was closed: the collector answered 200"):
            client.close()


@KINDS
def test_over_tls(kind: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, "-keyout", str(key)]
    subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    with scripted(kind, lambda _, events: ok(events), (key, certificate)) as server:
        with client_of(kind, server.address, ca_file=certificate) as client:
            client.track("purchase", PURCHASE)
            assert client.flush(30) == 0
        distrusting = client_of(kind, server.address, tls=True)
        distrusting.track("purchase", PURCHASE)
        assert distrusting.flush(0.5) == 1
        with pytest.raises(GaveUp):
            distrusting.close(0)
        assert len(server.taken) == 1


# ---- back-pressure and the end
def nowhere() -> str:
    return "http://127.0.0.1:9"  # discard: nobody listens


def test_a_full_queue_raises_or_blocks_as_the_caller_likes() -> None:
    client = client_of("rest", nowhere(), max_queue_events=10, max_batch_events=5, block_seconds=0)
    assert 10 <= fill(client) <= 15
    with pytest.raises(GaveUp, match=r"1\d events were not acknowledged"):
        client.close(0)
    go_on = threading.Event()

    def answers(_: int, events: Events) -> Answer:
        go_on.wait(60)
        return ok(events)

    with scripted("rest", answers) as server, client_of("rest", server.address, max_queue_events=10, max_batch_events=5) as client:
        threading.Timer(0.3, go_on.set).start()
        sent = [client.track("purchase", PURCHASE) for _ in range(200)]
        assert client.flush(60) == 0
    assert server.taken == sent


def test_flush_says_what_is_left() -> None:
    client = client_of("rest", nowhere())
    for _ in range(7):
        client.track("purchase", PURCHASE)
    assert client.flush(0.3) == 7
    assert client.stats().queued == 7
    with pytest.raises(GaveUp, match="7 events were not acknowledged before the client was closed"):
        client.close(0)
    with pytest.raises(RuntimeError, match="the client is closed"):
        client.track("purchase", PURCHASE)


@pytest.mark.parametrize("durable", [False, True])
def test_what_could_not_be_sent_is_sent_by_the_next_client_in_order(tmp_path: Path, durable: bool) -> None:
    options = {"spool_dir": tmp_path, "durable": durable, "max_queue_events": 10, "max_batch_events": 5}
    with client_of("rest", nowhere(), **options) as client:
        sent = [client.track("purchase", PURCHASE) for _ in range(57)]
        assert client.stats().spooled == (57 if durable else 50)
        with pytest.raises(SpoolTaken):
            client_of("rest", nowhere(), **options)
        client.close(0.2)
    with scripted("rest", lambda _, events: ok(events)) as server, client_of("rest", server.address, **options) as client:
        assert client.flush(60) == 0
        assert ids(server.requests) == sent
        assert client.stats() == (57, 0, 0, 0, 0, None)
    assert list(tmp_path.glob("*.spool")) == [] or Spool(tmp_path, 10**6).records == 0


def test_a_full_spool_takes_no_more(tmp_path: Path) -> None:
    client = client_of("rest", nowhere(), spool_dir=tmp_path, spool_max_bytes=100_000, durable=True, block_seconds=0)
    taken = fill(client)
    assert taken > 100
    with pytest.raises(QueueFull, match="is full"):
        client.track("purchase", PURCHASE)
    assert client.stats().spooled == taken
    client.close(0)
    spool = Spool(tmp_path, 100_000)
    assert spool.records == taken
    spool.close()


def test_a_failure_of_the_caller_is_not_hidden_by_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    def work() -> None:
        with scripted("rest", lambda *_: error(401)) as server, client_of("rest", server.address) as client:
            client.track("purchase", PURCHASE)
            raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        work()
    assert "1 events were not acknowledged before the client was closed: the collector answered 401" in caplog.text


# ---- processes
def run(code: str, *arguments: str) -> None:
    """In a process of its own, which ends as it does."""
    assert subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60).returncode == 0


def test_a_process_that_just_ends_has_sent_everything() -> None:
    code = """if True:
        import sys
        from producers.client import Client
        client = Client(sys.argv[1], "key", source="shop", linger=1000)
        for number in range(1200):
            client.track("purchase", {"number": number})
    """
    with scripted("rest", lambda _, events: ok(events)) as server:
        run(code, server.address.replace("127.0.0.1", "localhost"))  # a name is looked up at exit too
        assert [event["data"]["number"] for events in server.requests for event in events] == list(range(1200))


def test_an_event_loop_that_just_ends_has_sent_everything() -> None:
    code = """if True:
        import asyncio, sys
        from producers.client import AsyncClient
        async def main():
            client = AsyncClient(sys.argv[1], "key", source="shop", linger=1000)
            for number in range(1200):
                await client.track("purchase", {"number": number})
        asyncio.run(main())
    """
    with scripted("rest", lambda _, events: ok(events)) as server:
        run(code, server.address)
        assert [event["data"]["number"] for events in server.requests for event in events] == list(range(1200))


def test_a_fork_sends_its_own_and_nothing_of_its_parent() -> None:
    code = """if True:
        import os, sys
        from producers.client import Client
        client = Client(sys.argv[1], "key", source="shop", linger=1000)
        client.track("purchase", {"number": 1})
        client.flush()
        client.track("purchase", {"number": 2})
        child = os.fork()
        client.track("purchase", {"number": 30 if child == 0 else 3})
        if child == 0:
            assert client.stats().queued == 1
            sys.exit()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    with scripted("rest", lambda _, events: ok(events)) as server:
        run(code, server.address)
        assert [[event["data"]["number"] for event in events] for events in server.requests] == [[1], [30], [2, 3]]


def test_a_fork_does_not_touch_the_spool_of_its_parent(tmp_path: Path) -> None:
    code = """if True:
        import os, sys
        from producers.client import Client
        client = Client(sys.argv[1], "key", source="shop", spool_dir=sys.argv[2], durable=True)
        client.track("purchase", {"number": 1})
        child = os.fork()
        if child == 0:
            try:
                client.track("purchase", {"number": 30})
            except RuntimeError as error:
                assert "make a client with a spool_dir of its own after the fork" in str(error)
                sys.exit()
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.track("purchase", {"number": 2})
    """
    with scripted("rest", lambda _, events: ok(events)) as server:
        run(code, server.address, str(tmp_path))
        assert [event["data"]["number"] for events in server.requests for event in events] == [1, 2]


def test_a_fork_after_the_use_of_grpc_is_told_what_to_do() -> None:
    code = """if True:
        import os, sys
        from producers.client import Client
        client = Client(sys.argv[1], "key", source="shop", transport="grpc")
        client.track("purchase", {"number": 1})
        assert client.flush(30) == 0
        child = os.fork()
        if child == 0:
            try:
                client.track("purchase", {"number": 30})
            except RuntimeError as error:
                os._exit(0 if "make the first use after the fork, or use REST" in str(error) else 1)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.track("purchase", {"number": 2})
    """
    with scripted("grpc", lambda _, events: ok(events)) as server:
        run(code, server.address)
        assert [event["data"]["number"] for events in server.requests for event in events] == [1, 2]


def test_many_threads_share_one_client(tmp_path: Path) -> None:
    for durable in (False, True):
        with (
            scripted("rest", lambda _, events: ok(events)) as server,
            client_of("rest", server.address, spool_dir=tmp_path / str(durable), durable=durable, max_queue_events=40) as client,
        ):
            sent: list[list[str]] = [[] for _ in range(8)]

            def work(number: int, sent: list[list[str]] = sent, client: Client = client) -> None:
                for _ in range(100):
                    sent[number].append(client.track("purchase", {"by": number}))

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert client.flush(60) == 0
            by = [[event["id"] for events in server.requests for event in events if event["data"]["by"] == number] for number in range(8)]
            assert by == sent


# ---- asyncio
def in_loop(work: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(work(), 120))


@KINDS
def test_coroutines_have_the_same(kind: str) -> None:
    async def work() -> None:
        lost = {1, 4}
        with scripted(kind, lambda number, events: None if number in lost else ok(events)) as server:
            options: dict[str, Any] = {"source": "shop", "transport": kind, "linger": 0.01, "max_queue_events": 50, "block_seconds": None}
            async with AsyncClient(server.address, "key", **options) as client:
                sent = [await client.track("purchase", PURCHASE) for _ in range(1500)]
                assert await client.flush(60) == 0
                assert list(dict.fromkeys(server.taken)) == sent
                assert client.stats()[:2] == (1500, 0)

    in_loop(work)


def test_coroutines_wait_for_room_and_for_the_disk(tmp_path: Path) -> None:
    async def work() -> None:
        client = AsyncClient(nowhere(), "key", source="shop", max_queue_events=10, max_batch_events=5)
        outcomes = await asyncio.gather(*(client.track("purchase", PURCHASE) for _ in range(100)), return_exceptions=True)
        assert {type(one) for one in outcomes} == {str, QueueFull}
        assert 10 <= await client.flush(0.1) <= 15
        with pytest.raises(GaveUp):
            await client.close(0)
        async with AsyncClient(nowhere(), "key", source="shop", spool_dir=tmp_path, durable=True) as spooling:
            await asyncio.gather(*(spooling.track("purchase", {"number": number}) for number in range(50)))
            assert spooling.stats().spooled == 50
            await spooling.close(0)
        with scripted("rest", lambda _, events: ok(events)) as server:
            async with AsyncClient(server.address, "key", source="shop", spool_dir=tmp_path) as spooling:
                assert await spooling.flush(60) == 0
            assert sorted(event["data"]["number"] for events in server.requests for event in events) == list(range(50))

    in_loop(work)
