"""Whatever bytes come over a raw socket to a real collector: an answer of the table or a closed connection, and it goes on."""

import base64
import contextlib
import json
import random
import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.collector_mock_kafka import mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector

STATUSES = {200, 204, 400, 401, 403, 404, 405, 408, 413, 415, 417, 429, 431, 503}
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_LENGTH = re.compile(rb"^content-length: (\d+)\r$", re.MULTILINE)

AUTH = b"Authorization: Basic " + base64.b64encode(f"{KEY}:".encode()) + b"\r\n"
EVENT = b'{"id":"e1","source":"s","type":"login","subject":"u","data":{"a":1}}'
CALL = b'{"batch":[{"type":"track","event":"login","messageId":"m","userId":"u","properties":{}}]}'


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    more = b"".join(one + b"\r\n" for one in headers)
    return b"POST %b HTTP/1.1\r\nHost: x\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, AUTH, more, len(body), body)


def chunked(path: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n" % (path, AUTH)
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


VALID = [
    post(b"/v1/events", EVENT, b"Content-Type: application/cloudevents+json"),
    post(b"/v1/events", b"[" + EVENT + b"," + EVENT + b"]", b"Content-Type: application/cloudevents-batch+json"),
    post(b"/v1/events", b"{}", b"ce-id: 1", b"ce-type: login", b"ce-source: %20", b"ce-subject: u", b"ce-time: 2026-01-31T12:00:00Z"),
    post(b"/v1/batch", CALL, b"Origin: http://shop.example", b"User-Agent: \x7f"),
    post(b"/v1/track?writeKey=x&a=%00%ff", CALL, b"Content-Encoding: gzip"),
    post(b"/v1/logs", b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}', b"Content-Type: application/json"),
    post(b"/v1/logs", b"\x0a\x02\x12\x00", b"Content-Type: application/x-protobuf"),
    chunked(b"/v1/events", EVENT),
    b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /docs HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://u:p@h:99999/healthz?x#y HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE //v1/../%2e%2e/\xff%00%zz HTTP/1.1\r\nHost: x\r\n\r\n",
]
PIECES = [
    *(b"\r\n", b"\r", b"\n", b"\x00", b" ", b"\t", b":", b"%", b"%00", b"%0d%0a", b"\xff", b"\\", b'"', b"{", b"]", b"../", b";", b"*"),
    *(b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 18446744073709551616\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n"),
    *(b"Host: y\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Connection: close\r\n", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    *(
        b"Content-Type: text/plain; charset=latin1\r\n",
        b"Content-Encoding: br\r\n",
        b"Content-Encoding: gzip, gzip\r\n",
        b"ce-id: \xc3\r\n",
    ),
    *(
        b"a: b\r\n" * 3000,
        b"x" * 40_000,
        b"fffffffffffffffff\r\n",
        b"-1\r\n",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
    ),
    *(
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HTTP/9.9",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\\ud800",
        b"1e999",
        b"[" * 2000,
    ),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with mock_kafka() as broker, collector(broker.address, tmp_path_factory.mktemp("collector")) as one:
        one.wait()
        yield one


def said(running: CollectorProcess, sent: bytes) -> bytes:
    """All that is answered until the collector closes, which it does once nothing more comes. It has 30 s."""
    host, _, port = running.rest.removeprefix("http://").partition(":")
    found = b""
    with socket.create_connection((host, int(port)), timeout=30) as client, contextlib.suppress(ConnectionError):
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            found += part
    return found


def check(answers: bytes, heads: bool) -> None:
    """Each answer is HTTP, with a status of the table, and an error says why. `heads`: some may be answers to HEAD, without bodies."""
    while answers:
        if answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
            answers = answers[25:]
            continue
        found = _ANSWER.match(answers)
        assert found, answers[:200]
        status, head = int(found[1]), found[2]
        assert status in STATUSES
        assert not re.search(rb"[^\x20-\x7e\r\n]", head)
        length = int(of[1]) if (of := _LENGTH.search(head)) else 0
        body, answers = answers[found.end() :][:length], answers[found.end() + length :]
        if heads and (body.startswith(b"HTTP/1.1 ") or not body):
            answers = body + answers
        elif status >= 400 and b"application/json" in head:
            why = json.loads(body)
            assert why["code"]
            assert why["message"]


def serves(running: CollectorProcess) -> None:
    answer = httpx.post(f"{running.rest}/v1/events", content=EVENT, auth=(KEY, ""), timeout=20)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "could not be served" not in log
    assert all(json.loads(line)["service"] == "collector" for line in log.splitlines() if not line.startswith("%"))


_SETTINGS = settings(max_examples=250, suppress_health_check=list(HealthCheck))


def test_valid_requests_with_faults(running: CollectorProcess) -> None:
    @_SETTINGS
    @given(st.lists(st.sampled_from(VALID), min_size=1, max_size=4), st.integers(0, 5), st.randoms(use_true_random=False))
    def sent(requests: list[bytes], faults: int, chance: random.Random) -> None:
        stream = b"".join(requests)
        for _ in range(faults):
            place = chance.randrange(len(stream) + 1)
            if chance.random() < 0.5:  # at the start of a line, where most is decided
                place = stream.find(b"\n", place) + 1
            stream = stream[:place] + chance.choice(PIECES) + stream[place + chance.choice((0, 0, 1, 5)) :]
        check(said(running, stream), heads=b"HEAD" in stream)

    sent()
    serves(running)


def test_any_bytes(running: CollectorProcess) -> None:
    @_SETTINGS
    @given(st.binary(max_size=300) | st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12).map(b"".join))
    @example(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160))
    @example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40))
    @example(b"\r\n" * 50_000)
    def sent(stream: bytes) -> None:
        check(said(running, stream), heads=b"HEAD" in stream)

    sent()
    serves(running)


@pytest.mark.parametrize("request_", VALID)
def test_what_is_cut_off_anywhere(running: CollectorProcess, request_: bytes) -> None:
    @settings(max_examples=15)
    @given(st.integers(0, len(request_)))
    def cut(place: int) -> None:
        check(said(running, request_[:place]), heads=b"HEAD" in request_)

    cut()
    serves(running)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
        (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"TRACE /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", [405]),
        (b"POST /v1%2fevents HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", [401]),
        (b"GET /%0d%0aset-cookie:%20x HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (post(b"/v1/events", b"", b"Content-Encoding: gzip"), [400]),
        (post(b"/v1/events", EVENT, b"Content-Encoding: gzip"), [400]),
        (post(b"/v1/events", EVENT, b"Content-Encoding: rot13"), [415]),
        (post(b"/v1/events", EVENT, b"Content-Type: image/png"), [415]),
        (post(b"/v1/events", EVENT, b"Origin: http://evil.example"), [403]),
        (post(b"/v1/events", EVENT) * 3, [200, 200, 200]),
        (chunked(b"/v1/events", EVENT) + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", [200, 200]),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"\x00", [200, 200, 400]),
    ],
)
def test_what_is_answered(running: CollectorProcess, sent: bytes, statuses: list[int]) -> None:
    answers = said(running, sent)
    check(answers, heads=False)
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answers)] == statuses
