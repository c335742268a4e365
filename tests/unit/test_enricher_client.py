"""The client of the enrichment API against servers that answer well, badly, slowly or not at all; and when it asks no more."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from enricher.answer import Enrichment, Failure, Why
from enricher.breaker import CircuitBreaker
from enricher.client import EnrichmentApi
from headrace import metrics
from tests.scripted_enrichment_api import SCORE, Json, ScriptedApi, http, scores, scripted_api, well
from tests.unit.test_enricher import purchase

GOOD = {"repurchase": Enrichment(**SCORE)}
EVENTS = [purchase(f"p{n}") for n in range(3)]


def client(api: ScriptedApi, deadline: float = 5.0, failures: int = 1000, seconds: float = 1000.0) -> EnrichmentApi:
    return EnrichmentApi(api.url, deadline, CircuitBreaker(failures, seconds))


def sends(*parts: bytes) -> Callable[[socket.socket, list[Json]], None]:
    def behave(connection: socket.socket, _: list[Json]) -> None:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def answers(change: Callable[[bytes], bytes]) -> Callable[[socket.socket, list[Json]], None]:
    return lambda connection, events: connection.sendall(http(change(scores(events))))


def drips(connection: socket.socket, events: list[Json], begin: bytes) -> None:
    """A byte now and then: no read of it ever takes long."""
    connection.sendall(begin)
    try:
        while True:
            time.sleep(0.02)
            connection.sendall(b"a")
    except OSError:
        return


def too_much(connection: socket.socket, events: list[Json]) -> None:
    connection.sendall(http(b"", length=10**12))
    while True:
        connection.sendall(b" " * 65536)


@pytest.mark.parametrize(
    ("behave", "why", "detail"),
    [
        (sends(), Why.NO_ANSWER, "without response"),
        (sends(b"\x00\xff\xfe no HTTP at all\r\n\r\n"), Why.NO_ANSWER, "no HTTP at all"),
        (sends(http(b'{"enrichments": [', length=1000)), Why.NO_ANSWER, "IncompleteRead"),  # cut in the middle of the body
        (sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"enr"), Why.NO_ANSWER, "IncompleteRead"),
        (sends(http(b'{"code": "x"}', "500 Internal Server Error")), Why.STATUS, 'status 500: {"code": "x"}'),
        (sends(http(b"why", "503 Service Unavailable")), Why.STATUS, "status 503: why"),
        (sends(http(b"", "204 No Content")), Why.STATUS, "status 204"),
        (sends(b"HTTP/1.1 301 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), Why.STATUS, "status 301"),
        (sends(http(b"<html>garbage</html>")), Why.BAD_ANSWER, "no list of enrichments"),
        (sends(http(b"\x1f\x8b\x08garbage")), Why.BAD_ANSWER, "no list of enrichments"),
        (answers(lambda body: body.replace(b"}}, {", b"}}], [{", 1)), Why.BAD_ANSWER, "no list of enrichments"),
        (answers(lambda _: b'{"enrichments": [{}, {}]}'), Why.BAD_ANSWER, "2 enrichments for 3 events"),
        (answers(lambda body: body.replace(b"0.5", b"NaN", 1)), Why.BAD_ANSWER, "no list of enrichments"),
        (answers(lambda body: body.replace(b"0.5", b"1e999", 1)), Why.BAD_ANSWER, "out of range"),
        (answers(lambda body: body.replace(b"0.5", b'"0.5"', 1)), Why.BAD_ANSWER, "got `str`"),
        (too_much, Why.BAD_ANSWER, "longer than 30000 bytes"),
    ],
)  # fmt: skip
def test_whatever_comes_instead_of_an_answer_has_a_reason_and_the_next_request_is_none_the_worse(
    behave: Callable[[socket.socket, list[Json]], None], why: Why, detail: str
) -> None:
    with scripted_api(behave) as api:
        asking = client(api)
        failures = list(asking.score(EVENTS))
        assert len(failures) == 3
        assert {type(one) for one in failures} == {Failure}
        first: Any = failures[0]
        assert first.why is why
        assert detail in first.detail
        api.behave = well
        assert list(asking.score(EVENTS)) == [GOOD] * 3


def test_a_port_where_nobody_listens_has_a_reason() -> None:
    with scripted_api() as api:
        api.close()
        (failure,) = list(client(api).score(EVENTS[:1]))
    assert isinstance(failure, Failure)
    assert failure.why is Why.NO_ANSWER


@pytest.mark.parametrize(
    "behave",
    [
        lambda connection, events: drips(connection, events, b"HTTP/1.1 200 OK\r\nX-Long: "),
        lambda connection, events: drips(connection, events, http(b"", length=10**6)),
        lambda connection, _: stays_silent(connection),
    ],
    ids=["headers drip", "body drips", "nothing comes"],
)
def test_the_deadline_holds_however_slowly_an_answer_comes(behave: Callable[[socket.socket, list[Json]], None]) -> None:
    with scripted_api(behave) as api:
        asking = client(api, deadline=0.3)
        failures = list(asking.score(EVENTS))
        assert [one.why for one in failures if isinstance(one, Failure)] == [Why.LATE] * 3
        api.behave = well
        assert list(asking.score(EVENTS)) == [GOOD] * 3


def test_the_deadline_holds_where_the_name_of_the_host_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over, looked_up = threading.Event(), list[bool]()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: looked_up.append(over.wait(60)))
    asking = EnrichmentApi("http://enrichment.example:8010", 0.2, CircuitBreaker(1000, 1000.0))
    failures = list(asking.score([purchase(f"p{n}") for n in range(5000)]))
    assert [one.why for one in failures if isinstance(one, Failure)] == [Why.LATE] * 5000
    assert looked_up == []
    over.set()


def stays_silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the client closes it


def closes(connection: socket.socket, events: list[Json]) -> None:
    """As a server whose patience with idle connections has just ended: it does not say so in its response."""
    well(connection, events)
    connection.shutdown(socket.SHUT_RDWR)


def until_the_end(connection: socket.socket, events: list[Json]) -> None:
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + scores(events))
    connection.shutdown(socket.SHUT_RDWR)


def in_chunks(connection: socket.socket, events: list[Json]) -> None:
    body = scores(events)
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:10], body[10:]))
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + parts + b"0\r\n\r\n")


@pytest.mark.parametrize("behave", [closes, until_the_end, in_chunks])
def test_whatever_http_allows_is_an_answer(behave: Callable[[socket.socket, list[Json]], None]) -> None:
    with scripted_api(behave) as api:
        asking = client(api)
        for _ in range(5):
            assert list(asking.score(EVENTS)) == [GOOD] * 3


def test_a_large_batch_goes_in_several_requests_and_each_fails_alone() -> None:
    many = [purchase(f"p{n}") for n in range(2500)]

    def second_fails(connection: socket.socket, events: list[Json]) -> None:
        connection.sendall(http(b"why", "500 Internal Server Error") if events[0]["id"] == "p1000" else http(scores(events)))

    with scripted_api(second_fails) as api:
        found = list(client(api).score(many))
        assert sorted(len(asked) for asked in api.asked) == [500, 1000, 1000]
        assert sorted(id for asked in api.asked for id in asked) == sorted(one.id for one in many)
    assert found[:1000] + found[2000:] == [GOOD] * 1500
    assert {one.why for one in found[1000:2000] if isinstance(one, Failure)} == {Why.STATUS}


def test_an_api_that_is_down_is_not_asked_but_for_probes_and_asked_again_after_one_succeeds() -> None:
    with scripted_api(sends(http(b"why", "500 Internal Server Error"))) as api:
        clock = [0.0]
        asking = EnrichmentApi(api.url, 5.0, CircuitBreaker(2, 10.0, lambda: clock[0]))
        for _ in range(2):
            assert [one.why for one in list(asking.score(EVENTS)) if isinstance(one, Failure)] == [Why.STATUS] * 3
        assert metrics.CIRCUIT_OPEN._value.get() == 1
        for _ in range(5):
            assert [one.why for one in list(asking.score(EVENTS)) if isinstance(one, Failure)] == [Why.CIRCUIT_OPEN] * 3
        assert len(api.asked) == 2

        clock[0] = 10.0  # a probe, which fails
        list(asking.score(EVENTS))
        _eventually(lambda: len(api.asked) == 3)
        list(asking.score(EVENTS))
        assert len(api.asked) == 3

        api.behave = well
        clock[0] = 25.0  # a probe, which succeeds
        assert [one.why for one in list(asking.score(EVENTS)) if isinstance(one, Failure)] == [Why.CIRCUIT_OPEN] * 3
        _eventually(lambda: metrics.CIRCUIT_OPEN._value.get() == 0)
        assert list(asking.score(EVENTS)) == [GOOD] * 3
        assert len(api.asked) == 5


def _eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    assert holds()


def test_the_circuit_opens_after_so_many_failures_in_a_row_and_probes_once_in_a_while() -> None:
    clock = [0.0]
    breaker = CircuitBreaker(3, 10.0, lambda: clock[0])
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert breaker.closed
    assert not breaker.may_probe()
    breaker.failed()
    assert not breaker.closed
    assert [breaker.may_probe() for clock[0] in (0.0, 9.9, 10.0, 10.1, 19.9, 20.0)] == [False, False, True, False, False, True]
    breaker.failed()
    assert [breaker.may_probe() for clock[0] in (29.9, 30.0)] == [False, True]
    breaker.succeeded()
    assert breaker.closed
