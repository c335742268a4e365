"""The HTTP server of the collector on a real socket: what clients do wrong, slowly, in pieces or too often."""

import asyncio
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import http, listening
from collector.admission import Admission
from collector.http import Answer, Bounds, Request, Server, error

POST = b"POST /v1/events?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"

CHUNKED = b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Served:
    """A server that says what it got, and waits where the path is /wait."""

    def __init__(self, bounds: Bounds, held_bytes: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.seen: list[Request] = []
        self.server = Server(self._answer, bounds, Admission(held_bytes))
        self.loop = uvloop.new_event_loop()
        self._free = asyncio.Event()

    async def _answer(self, request: Request) -> Answer:
        self.seen.append(request)
        if request.path == "/wait":
            await self._free.wait()
        if request.path == "/large":
            return Answer(200, b"x" * 20_000_000)
        return Answer(200, json.dumps([request.method, request.path, request.query.decode(), len(request.body)]).encode())

    def call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def free(self) -> None:
        self.loop.call_soon_threadsafe(self._free.set)

    def hold(self) -> None:
        self.seen.clear()
        self._free = asyncio.Event()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=30)

    def ask(self, *parts: bytes) -> bytes:
        """All that is answered until the server closes."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return everything(client)


@contextmanager
def served(bounds: Bounds | None = None, held_bytes: int = 10_000_000) -> Iterator[Served]:
    one = Served(bounds or Bounds(), held_bytes)
    thread = threading.Thread(target=one.loop.run_forever)
    thread.start()
    one.call(one.server.start(one.listener))
    try:
        yield one
    finally:
        one.free()
        one.call(one.server.stop(5))
        one.loop.call_soon_threadsafe(one.loop.stop)
        thread.join()


def everything(client: socket.socket) -> bytes:
    with client.makefile("rb") as answer:
        return answer.read()


def one_answer(client: socket.socket) -> tuple[int, dict[str, str], bytes]:
    with client.makefile("rb") as file:
        return parsed(file.readline, file.read)


def parsed(readline: Callable[[], bytes], read: Callable[[int], bytes]) -> tuple[int, dict[str, str], bytes]:
    status = int(readline().split()[1])
    headers = {}
    while line := readline().strip():
        name, value = line.decode().split(": ", 1)
        headers[name] = value
    return status, headers, read(int(headers.get("content-length", "0")))


def refusal(said: bytes) -> tuple[int, str]:
    head, body = said.split(b"\r\n\r\n", 1)
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["code"]


def test_requests_in_any_pieces_are_answered_in_order() -> None:
    requests = POST % (5, b"hello") + b"GET /a%20b HTTP/1.1\r\nHost: x\r\n\r\n"
    requests += b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    last = b"HEAD /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with served() as one:

        @settings(max_examples=30, deadline=None)
        @given(st.lists(st.integers(1, len(requests + last) - 1), max_size=6))
        def pieces(cuts: list[int]) -> None:
            places = [0, *sorted(cuts), len(requests + last)]
            said = one.ask(*[(requests + last)[a:b] for a, b in itertools.pairwise(places)])
            found = [part.split(b"\r\n\r\n")[-1] for part in said.split(b"HTTP/1.1 200 OK\r\n")[1:]]
            assert found == [b'["POST", "/v1/events", "a=b", 5]', b'["GET", "/a b", "", 0]', b'["POST", "/c", "", 5]', b""]

        pieces()


class _Nothing(dict[bytes, http.Head]):
    """Forgets at once."""

    def __setitem__(self, key: bytes, value: http.Head) -> None: ...


def test_that_a_head_came_before_changes_nothing() -> None:
    kinds = [
        POST % (5, b"hello"),
        POST % (5, b"world"),
        POST % (0, b""),
        b"POST /v1/batch HTTP/1.1\r\nhost:x\r\nA: 1\r\na:  2 \r\nConnection: keep-alive\r\ncontent-length:  3\r\n\r\n{}\n",
        b"POST /a%20b?c=%20 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\r\n\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n\r\n",
        b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        b"POST /f HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"GET /g HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok",
        b"HEAD /h HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    last = b"POST /z HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1\r\n\r\n!"
    with served() as one, served() as plain:
        plain.server.heads._known = _Nothing()

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.sampled_from(kinds), min_size=1, max_size=6), st.lists(st.integers(0, 700), max_size=2))
        def pieces(asked: list[bytes], cuts: list[int]) -> None:
            ends = list(itertools.accumulate(map(len, asked)))
            text = b"".join(asked) + last
            places = [0, *sorted({min(cut, len(text)) for cut in (*cuts, *ends)}), len(text)]
            said, seen = [], []
            for server in (one, plain):
                server.seen.clear()
                answers = b""
                with server.connect() as client:
                    for a, b in itertools.pairwise(places):
                        client.sendall(text[a:b])
                        if b in ends:
                            time.sleep(0.002)  # that it comes by itself
                    answers = everything(client)
                said.append(re.sub(b"date: .*\r\n|HTTP/1.1 100 Continue\r\n\r\n", b"", answers))
                seen.append([request._replace(head=None) for request in server.seen])
                known[server] += sum(request.head is not None for request in server.seen)
            assert said[0] == said[1]
            assert [request._replace(client=None) for request in seen[0]] == [request._replace(client=None) for request in seen[1]]

        known = dict.fromkeys((one, plain), 0)
        pieces()
        assert known[one] > 50
        assert known[plain] == 0


def test_heads_that_are_kept_are_few_and_short() -> None:
    heads = http.Heads()
    for number in range(5000):
        head = b"POST /%d HTTP/1.1\r\nHost: %b\r\nContent-Length: 2\r\n\r\n" % (number, b"x" * (number % 4000))
        request = Request("POST", f"/{number}", b"", {"host": "x", "content-length": "2"}, b"ok", None)
        heads.learn(head + b"ok", b"/%d" % number, request)
        found = heads.find(head + b"ok")
        assert (found is not None) == (len(head) <= 2048)
        assert heads.find(head + b"okay") is None
        assert heads.find(head + b"o") is None
    assert len(heads._known) <= 512


def test_pipelined_requests_wait_for_the_one_before() -> None:
    with served() as one, one.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + POST % (2, b"{}") * 50)
        while not one.seen:
            pass
        client.sendall(b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert [request.path for request in one.seen] == ["/wait"]
        one.free()
        said = everything(client)
        assert said.count(b"HTTP/1.1 200 OK") == 52
        assert said.endswith(b'["GET", "/last", "", 0]')
        assert one.server.admission.bytes == 0


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 501\r\n\r\n", 413, "too_large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1f5\r\n" + b"a" * 501, 413, "too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 200_000, 431, "head_too_large"),
        (b"GET /?" + b"a" * 200_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * 60_000, 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d:b\r\n" % n for n in range(5_000)), 431, "head_too_large"),
        (CHUNKED + b"0\r\n" + b"a: b\r\n" * 20_000, 431, "head_too_large"),
        (CHUNKED + b"0\r\na: " + b"b" * 300_000, 431, "head_too_large"),
        (CHUNKED + b"1;" + b"b" * 300_000, 431, "head_too_large"),
        (CHUNKED + b"1;x=y\r\na\r\n-1\r\n", 400, "bad_request"),
        (CHUNKED + b"fffffffffffffffff\r\n", 400, "bad_request"),
        (CHUNKED + b"0x1\r\na\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\na", 400, "bad_request"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c: d\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\nc: d\r\n\r\n", 400, "bad_request"),
        (b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "bad_request"),
        (
            b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
            405,
            "method_not_allowed",
        ),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: a miracle\r\n\r\n", 417, "expectation_failed"),
    ],
)
def test_a_refusal_is_read_although_the_client_goes_on_sending(sent: bytes, status: int, code: str) -> None:
    with served(Bounds(request_bytes=500)) as one, one.connect() as client:
        client.sendall(sent)
        client.sendall(b"x" * 100_000)
        assert refusal(everything(client)) == (status, code)
        assert one.seen == []
        assert one.server.admission.bytes == 0


def test_trailers_are_no_headers() -> None:
    with served() as one, one.connect() as client:
        client.sendall(CHUNKED + b"2;name=value\r\n{}\r\n0\r\nAuthorization: Basic eDo=\r\nHost: y\r\n\r\n")
        assert one_answer(client)[2] == b'["POST", "/c", "", 2]'
        assert one.seen[-1].headers == {"host": "x", "transfer-encoding": "chunked"}


UPGRADE = b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("asked", [POST % (2, b"{}"), UPGRADE], ids=["posts", "upgrades"])
def test_only_so_many_requests_wait_on_one_connection(asked: bytes) -> None:
    with served() as one, one.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" + asked * 3000)
        while not one.seen:
            pass
        one.free()
        said = everything(client)
        first, _, last = said.rpartition(b"HTTP/1.1 ")
        assert refusal(b"HTTP/1.1 " + last) == (503, "busy")
        assert first.count(b"HTTP/1.1 200 OK") == len(one.seen)
        assert len(one.seen) < 200
        assert one.server.admission.bytes == 0


@pytest.mark.parametrize("how", ["close", "reset", "half", "refused"])
def test_nothing_stays_counted_of_who_leaves(how: str) -> None:
    """However a connection ends with requests that are served, that wait and that are half here."""
    with served() as one:
        for _ in range(3):
            with one.connect() as client:
                waiting = (POST % (1000, b"x" * 1000)).replace(b"/v1/events", b"/wait") + POST % (2000, b"y" * 2000) * 5
                client.sendall(waiting + (CHUNKED + b"800\r\n" + b"z" * 0x700 if how != "half" else b""))
                if how == "refused":
                    client.sendall(b"z" * 0x100 + b"nonsense")
                while not one.seen or one.server.admission.bytes < 11_000:
                    pass
                if how == "half":
                    client.shutdown(socket.SHUT_WR)
                    one.free()
                    assert everything(client).count(b"HTTP/1.1 200 OK") == 6, "what was asked before is answered"
                elif how == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif how == "refused":
                    one.free()
                    assert everything(client).count(b"HTTP/1.1 200 OK") == 6
            one.free()
            while one.server.connections or one.server.admission.bytes:
                assert one.server.admission.bytes >= 0
            one.hold()


def test_what_came_before_a_refusal_is_answered_first() -> None:
    with served() as one:
        said = one.ask(POST % (2, b"{}") + b"nonsense\r\n\r\n")
    first, second = said.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200 OK")
    assert refusal(b"HTTP/1.1 " + second) == (400, "bad_request")


def test_continue_is_said_before_a_body_is_sent() -> None:
    with served() as one, one.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert one_answer(client)[0] == 200


def test_older_and_newer_clients() -> None:
    with served() as one:
        said = one.ask(b"GET /old HTTP/1.0\r\n\r\n")
        assert b"connection: close" in said
        with one.connect() as client:
            client.sendall(b"GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert one_answer(client)[1]["connection"] == "keep-alive"
            client.sendall(b"GET /proxied HTTP/1.1\r\nHost: x\r\n\r\n".replace(b" /", b" http://x/"))
            assert one_answer(client)[2] == b'["GET", "/proxied", "", 0]'
            client.sendall(
                b"GET /h2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n"
            )
            assert one_answer(client)[2] == b'["GET", "/h2", "", 0]'
            client.sendall(b"GET /after HTTP/1.1\r\nHost: x\r\nA: 1\r\nA: 2\r\n\r\n")
            status, headers, _ = one_answer(client)
            assert (status, set(headers)) == (200, {"date", "content-type", "content-length"})
            assert one.seen[-1].headers == {"host": "x", "a": "1, 2"}


def test_a_client_may_close_its_side_and_wait() -> None:
    with served() as one, one.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        while not one.seen:
            pass
        one.free()
        assert everything(client).startswith(b"HTTP/1.1 200 OK")


SLOW = Bounds(receive_seconds=0.6, idle_seconds=0.6)


def drip(client: socket.socket, text: bytes) -> None:
    for byte in text:
        try:
            client.sendall(bytes([byte]))
        except OSError:
            return
        threading.Event().wait(0.05)


def test_slow_senders_are_cut_off_while_others_are_served() -> None:
    with served(SLOW) as one, one.connect() as head, one.connect() as body, one.connect() as nothing, one.connect() as idle:
        idle.sendall(POST % (2, b"{}"))
        assert one_answer(idle)[0] == 200
        texts = {head: POST % (2, b"{}") * 10, body: POST % (400, b"y" * 400)}
        threads = [threading.Thread(target=drip, args=item) for item in texts.items()]
        for thread in threads:
            thread.start()
        while threads[0].is_alive() or threads[1].is_alive():
            with one.connect() as other:
                other.sendall(POST % (3, b"abc"))
                assert one_answer(other)[0] == 200
        assert refusal(everything(head)) == refusal(everything(body)) == (408, "too_slow")
        assert everything(nothing) == everything(idle) == b""
        assert one.server.admission.bytes == 0


def test_who_does_not_read_the_answer_is_cut_off() -> None:
    with served(SLOW) as one, one.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        while one.server.connections or not one.seen:
            pass
        assert [request.path for request in one.seen] == ["/large"]


def test_a_request_that_waits_is_not_slow() -> None:
    with served(SLOW) as one, one.connect() as client:
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        threading.Event().wait(1.5)
        one.free()
        assert one_answer(client)[0] == 200


def test_connections_and_bytes_have_a_limit() -> None:
    with served(Bounds(connections=3), held_bytes=1000) as one:
        waiting = [one.connect() for _ in range(3)]
        for client in waiting[:2]:
            client.sendall(b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n" + b"a" * 400)
        while len(one.seen) < 2:
            pass
        assert one.server.admission.bytes == 800
        waiting[2].sendall(POST % (300, b"b" * 300))
        assert refusal(everything(waiting[2])) == (503, "unavailable")
        waiting[2].close()
        while len(one.server.connections) > 2:
            pass
        with one.connect() as third, one.connect() as fourth:
            third.sendall(POST % (100, b"c" * 100))
            assert one_answer(third)[0] == 200
            fourth.sendall(b"")
            assert refusal(everything(fourth)) == (503, "busy")
        one.free()
        assert [one_answer(client)[0] for client in waiting[:2]] == [200, 200]
        assert one.server.admission.bytes == 0
        for client in waiting[:2]:
            client.close()


def test_who_sends_slowly_loses_the_room_that_others_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_PATIENCE", 0.5)
    with served(held_bytes=1000) as one, one.connect() as slow, one.connect() as late:
        slow.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\nabc")
        while not one.server.admission.bytes:
            pass
        assert refusal(one.ask(POST % (400, b"b" * 400))) == (503, "unavailable")
        threading.Event().wait(0.6)
        late.sendall(POST % (400, b"c" * 400))
        assert one_answer(late)[0] == 200
        assert refusal(everything(slow)) == (408, "too_slow")
        assert one.server.admission.bytes == 0


def test_a_client_that_goes_away_holds_nothing() -> None:
    with served() as one:
        for sent in (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 800\r\n\r\nabc",
            b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" * 3,
        ):
            with one.connect() as client:
                client.sendall(sent)
                while not one.server.admission.bytes:
                    pass
        one.free()
        while one.server.connections or one.server.admission.bytes:
            pass


def test_stopping_finishes_what_has_begun_and_closes_the_rest() -> None:
    with served() as one, one.connect() as busy, one.connect() as idle:
        busy.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        idle.sendall(POST % (2, b"{}"))
        assert one_answer(idle)[0] == 200
        while len(one.seen) < 2:
            pass
        stopping = asyncio.run_coroutine_threadsafe(one.server.stop(20), one.loop)
        assert everything(idle) == b""
        one.free()
        assert b"connection: close" in everything(busy)
        stopping.result(20)
        with pytest.raises(ConnectionRefusedError):
            one.connect()


def test_a_line_break_can_stand_in_no_header() -> None:
    from collector.http import _encoded

    assert b"a: b\r\n" in _encoded(error(400, "x", "y", ("a", "b")), b"", b"now")
    for value in ("b\r\nset-cookie: c", "b\nc", "b\rc"):
        with pytest.raises(ValueError, match="line break"):
            _encoded(error(400, "x", "y", ("a", value)), b"", b"now")
