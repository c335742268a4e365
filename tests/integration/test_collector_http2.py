"""The collector's HTTP/2 and gRPC on real sockets: what the specifications ask for, and peers that break every rule."""

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from collector.http2 import Bounds, frames
from collector.http2.frames import Error, frame
from tests.http2_peer import PREFACE, Echo, Peer, echo, fields, message, split

HEAD_AND_END = frames.END_HEADERS | frames.END_STREAM


@pytest.fixture(scope="module")
def server() -> Iterator[Echo]:
    with echo(message_bytes=500_000) as running:
        yield running


@pytest.fixture(scope="module")
def hasty() -> Iterator[Echo]:
    """Who has little patience."""
    with echo(receive_seconds=0.5, ping_seconds=0.5, idle_seconds=0.2, connections=8) as running:
        yield running


@pytest.fixture
def peer(server: Echo) -> Iterator[Peer]:
    one = Peer(server.port)
    yield one
    one.close()


def until(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("it never came true")


def works(server: Echo) -> None:
    one = Peer(server.port)
    one.call(1, "/t/Echo", message(b"works"))
    assert one.answer(1)[1] == message(b"works")
    one.close()


# ---- calls


def test_h2_as_the_client(server: Echo) -> None:
    """A library that checks all that it gets; with padding, and windows that it gives back."""
    other = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    one = Peer(server.port, b"")
    other.initiate_connection()
    bodies = {1: [b"a" * 300_000], 3: [b"", b"b" * 100_000, b"c"]}
    waiting: dict[int, bytes] = {}
    for stream, sent in bodies.items():
        other.send_headers(stream, fields("/t/Stream" if len(sent) > 1 else "/t/Echo"))
        waiting[stream] = b"".join(map(message, sent))
    got = dict.fromkeys(bodies, b"")
    status: dict[int, str] = {}
    while len(status) < 2:
        for stream in list(waiting):
            while waiting[stream] and (size := min(other.local_flow_control_window(stream) - 10, 10_000, len(waiting[stream]))) > 0:
                other.send_data(stream, waiting[stream][:size], pad_length=3)
                waiting[stream] = waiting[stream][size:]
            if not waiting[stream]:
                other.end_stream(stream)
                del waiting[stream]
        one.send(other.data_to_send())
        for event in other.receive_data(one.socket.recv(65536)):
            match event:
                case h2.events.DataReceived():
                    got[event.stream_id] += event.data
                    other.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.TrailersReceived():
                    status[event.stream_id] = dict(event.headers)[b"grpc-status"].decode()
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise AssertionError(event)
    assert status == {1: "0", 3: "0"}
    assert got == {stream: b"".join(map(message, sent)) for stream, sent in bodies.items()}
    one.close()


def test_grpcs_own_client(server: Echo) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        unary: Any = channel.unary_unary("/t/Echo")
        stream: Any = channel.stream_stream("/t/Stream")
        none: Any = channel.unary_unary("/t/None")
        large = b"x" * 400_000
        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(unary, large, compression=how, timeout=30) for how in grpc.Compression for _ in range(8)]
            assert all(call.result() == large for call in calls)
        sent = [b"%d" % number * 1000 for number in range(500)]
        assert list(stream(iter(sent), timeout=30)) == sent
        with pytest.raises(grpc.RpcError) as caught:
            none(b"")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


STATUSES: dict[str, tuple[str, bytes, tuple[tuple[str, str], ...], dict[str, str]]] = {
    "well": ("/t/Echo", message(b"x"), (), {"grpc-status": "0"}),
    "gzip": ("/t/Echo", message(zlib.compress(b"x", wbits=31), 1), (("grpc-encoding", "gzip"),), {"grpc-status": "0"}),
    "no method": ("/t/None", message(b""), (), {"grpc-status": "12"}),
    "no encoding": ("/t/Echo", message(b""), (("grpc-encoding", "br"),), {
        "grpc-status": "12", "grpc-accept-encoding": "identity,deflate,gzip"}),
    "compressed how": ("/t/Echo", message(b"x", 1), (), {"grpc-status": "13"}),
    "not compressed": ("/t/Echo", message(b"x", 1), (("grpc-encoding", "gzip"),), {"grpc-status": "13"}),
    "a bomb": ("/t/Echo", message(zlib.compress(bytes(500_001)), 1), (("grpc-encoding", "deflate"),), {
        "grpc-status": "8", "grpc-message": "Received message larger than max (more than 500000 vs. 500000)"}),
    "too large": ("/t/Echo", message(b"")[:1] + (500_001).to_bytes(4), (), {
        "grpc-status": "8", "grpc-message": "Received message larger than max (500001 vs. 500000)"}),
    "no message": ("/t/Echo", b"", (), {"grpc-status": "12"}),
    "two messages": ("/t/Echo", message(b"") * 2, (), {"grpc-status": "12"}),
    "half a message": ("/t/Stream", message(b"xyz")[:-1], (), {"grpc-status": "13"}),
    "nothing on a stream": ("/t/Stream", b"", (), {"grpc-status": "0"}),
    "a timeout": ("/t/Keep", message(b""), (("grpc-timeout", "1m"),), {"grpc-status": "4"}),
    "no timeout": ("/t/Echo", message(b""), (("grpc-timeout", "1 s"),), {"grpc-status": "13"}),
    "broken": ("/t/Broken", message(b""), (), {"grpc-status": "13", "grpc-message": "the server failed: send it again"}),
    "escaped": ("/t/100%é", message(b""), (), {
        "grpc-status": "12", "grpc-message": "there is no method /t/100%25%C3%83%C2%A9: see the reflection service"}),
}  # fmt: skip


@pytest.mark.parametrize("case", STATUSES)
def test_how_a_call_ends(peer: Peer, server: Echo, case: str) -> None:
    path, body, more, wanted = STATUSES[case]
    for stream in (1, 3):  # the connection goes on
        peer.call(stream, path, body, *more)
        found, _ = peer.answer(stream)
        assert wanted.items() <= found.items(), found
        assert (found[":status"], found["content-type"]) == ("200", "application/grpc")
    server.kept.clear()


def test_who_speaks_no_grpc_is_told_in_http(peer: Peer) -> None:
    for stream, (name, value, status) in enumerate(
        [("content-type", "application/json", "415"), ("content-type", "application/grpc-web", "415"), (":method", "GET", "405")]
    ):
        of = [(key, value if key == name else given) for key, given in fields("/t/Echo")]
        peer.send(peer.head(2 * stream + 1, of, HEAD_AND_END))
        found, text = peer.answer(2 * stream + 1)
        assert (found[":status"], found["content-type"]) == (status, "text/plain; charset=utf-8")
        assert b"gRPC" in text


def test_a_message_that_is_too_large_is_refused_before_it_comes(peer: Peer) -> None:
    peer.send(peer.head(1, fields("/t/Echo")) + frame(frames.DATA, 0, 1, b"\0" + (2**32 - 1).to_bytes(4)))
    found, _ = peer.answer(1)
    assert found["grpc-message"] == "Received message larger than max (4294967295 vs. 500000)"
    assert peer.reset(1) == Error.NO_ERROR
    peer.send(split(bytes(200_000), 1, end=True))  # was on its way
    peer.call(3, "/t/Echo", message(b"x"))
    assert peer.answer(3)[1] == message(b"x")


# ---- rules

OPEN = 3  # a stream on which a message has begun
SLOT = "/t/Stream"
RST = frame(frames.RST_STREAM, 0, OPEN, bytes(4))
BROKEN: dict[str, tuple[bytes, Error]] = {
    "a frame too long": (frame(frames.DATA, 0, OPEN, bytes(16_385)), Error.FRAME_SIZE_ERROR),
    "data of an idle stream": (frame(frames.DATA, 0, 99, b"x"), Error.PROTOCOL_ERROR),
    "data of the connection": (frame(frames.DATA, 0, 0, b"x"), Error.PROTOCOL_ERROR),
    "padding over all": (frame(frames.DATA, frames.PADDED, OPEN, b"\x03xy"), Error.PROTOCOL_ERROR),
    "padding of nothing": (frame(frames.DATA, frames.PADDED, OPEN, b""), Error.PROTOCOL_ERROR),
    "an even stream": (frame(frames.HEADERS, frames.END_HEADERS, 4, b"\x82"), Error.PROTOCOL_ERROR),
    "a stream behind": (frame(frames.HEADERS, frames.END_HEADERS, 1, b"\x82"), Error.PROTOCOL_ERROR),
    "a block that is none": (frame(frames.HEADERS, frames.END_HEADERS, 5, b"\xff\xff\xff\xff\xff"), Error.COMPRESSION_ERROR),
    "a block cut off": (frame(frames.HEADERS, frames.END_HEADERS, 5, b"\x44\x05abc"), Error.COMPRESSION_ERROR),
    "a table too large": (frame(frames.HEADERS, frames.END_HEADERS, 5, b"\x3f\xe2\x1f"), Error.COMPRESSION_ERROR),
    "a table that changes late": (frame(frames.HEADERS, frames.END_HEADERS, 5, b"\x83\x20"), Error.COMPRESSION_ERROR),
    "a block interrupted": (frame(frames.HEADERS, 0, 5, b"\x83") + frame(frames.PING, 0, 0, bytes(8)), Error.PROTOCOL_ERROR),
    "a block of another": (frame(frames.HEADERS, 0, 5) + frame(frames.CONTINUATION, 4, 7), Error.PROTOCOL_ERROR),
    "an end of no block": (frame(frames.CONTINUATION, frames.END_HEADERS, OPEN), Error.PROTOCOL_ERROR),
    "empty continuations": (frame(frames.HEADERS, 0, 5) + frame(frames.CONTINUATION, 0, 5) * 40, Error.ENHANCE_YOUR_CALM),
    "continuations": (frame(frames.HEADERS, 0, 5) + frame(frames.CONTINUATION, 0, 5, bytes(9000)) * 2, Error.ENHANCE_YOUR_CALM),
    "a bomb of fields": (
        frame(frames.HEADERS, frames.END_HEADERS, 5, b"\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 12_000), Error.ENHANCE_YOUR_CALM),
    "settings of a stream": (frame(frames.SETTINGS, 0, OPEN), Error.PROTOCOL_ERROR),
    "settings cut off": (frame(frames.SETTINGS, 0, 0, b"x"), Error.FRAME_SIZE_ERROR),
    "a first window too large": (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), Error.FLOW_CONTROL_ERROR),
    "a frame size too small": (frames.settings({frames.MAX_FRAME_SIZE: 16_383}), Error.PROTOCOL_ERROR),
    "a push": (frame(frames.PUSH_PROMISE, 4, OPEN, bytes(4)), Error.PROTOCOL_ERROR),
    "a short ping": (frame(frames.PING, 0, 0, b"x"), Error.FRAME_SIZE_ERROR),
    "a short reset": (frame(frames.RST_STREAM, 0, OPEN, b"x"), Error.FRAME_SIZE_ERROR),
    "a reset of an idle stream": (frame(frames.RST_STREAM, 0, 99, bytes(4)), Error.PROTOCOL_ERROR),
    "no window more": (frames.window_update(0, 0), Error.PROTOCOL_ERROR),
    "a window too large": (frames.window_update(0, 2**31 - 1), Error.FLOW_CONTROL_ERROR),
    "a window of an idle stream": (frames.window_update(99, 1), Error.PROTOCOL_ERROR),
    "a goodbye of a stream": (frame(frames.GOAWAY, 0, OPEN, bytes(8)), Error.PROTOCOL_ERROR),
    "settings without end": (frames.settings({}) * 1100, Error.ENHANCE_YOUR_CALM),
    "pings without end": (frame(frames.PING, 0, 0, bytes(8)) * 1100, Error.ENHANCE_YOUR_CALM),
    "empty data without end": (frame(frames.DATA, 0, OPEN) * 1100, Error.ENHANCE_YOUR_CALM),
    "priorities without end": (frame(frames.PRIORITY, 0, 9, bytes(5)) * 1100, Error.ENHANCE_YOUR_CALM),
    "windows without end": (frames.window_update(OPEN, 1) * 1100, Error.ENHANCE_YOUR_CALM),
    "what nobody knows without end": (frame(77, 0, 0) * 1100, Error.ENHANCE_YOUR_CALM),
    "resets of old streams without end": (RST * 600, Error.ENHANCE_YOUR_CALM),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_broken_ends_the_connection(peer: Peer, server: Echo, case: str) -> None:
    sent, code = BROKEN[case]
    peer.send(peer.head(OPEN, fields(SLOT)) + frame(frames.DATA, 0, OPEN, message(b"12345678")[:-1]) + sent)
    assert peer.ended() == code
    works(server)


@pytest.mark.parametrize("hello", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", frames.PREFACE[:10] + b"x", frames.PREFACE + bytes(9)])
def test_who_does_not_begin_in_http2(server: Echo, hello: bytes) -> None:
    assert Peer(server.port, hello).ended() == Error.PROTOCOL_ERROR


STREAMS: dict[str, tuple[list[tuple[str, str]], bytes, Error]] = {
    "no fields": ([], b"", Error.PROTOCOL_ERROR),
    "no path": (fields("")[:2], b"", Error.PROTOCOL_ERROR),
    "upper case": (fields(SLOT, ("X-A", "1")), b"", Error.PROTOCOL_ERROR),
    "a line break": (fields(SLOT, ("x-a", "1\r\nx-b: 2")), b"", Error.PROTOCOL_ERROR),
    "of a connection": (fields(SLOT, ("connection", "close")), b"", Error.PROTOCOL_ERROR),
    "twice": (fields(SLOT)[:3] + fields(SLOT), b"", Error.PROTOCOL_ERROR),
    "late": (fields(SLOT, (":path", "/")), b"", Error.PROTOCOL_ERROR),
    "te": ([*fields(SLOT)[:5], ("te", "gzip")], b"", Error.PROTOCOL_ERROR),
    "a length that is none": (fields(SLOT, ("content-length", "-1")), b"", Error.PROTOCOL_ERROR),
    "more than its length": (fields(SLOT, ("content-length", "3")), frame(frames.DATA, 0, 1, bytes(4)), Error.PROTOCOL_ERROR),
    "less than its length": (fields(SLOT, ("content-length", "6")), frame(frames.DATA, 1, 1, message(b"")), Error.PROTOCOL_ERROR),
    "no window more": (fields(SLOT), frames.window_update(1, 0), Error.PROTOCOL_ERROR),
    "a window too large": (fields(SLOT), frames.window_update(1, 2**31 - 1), Error.FLOW_CONTROL_ERROR),
    "data after the end": (fields("/t/Keep"), (split(message(b""), 1, end=True)) + frame(frames.DATA, 0, 1, b"x"), Error.STREAM_CLOSED),
    "a priority too short": (fields(SLOT), frame(frames.PRIORITY, 0, 1, b"x"), Error.FRAME_SIZE_ERROR),
}  # fmt: skip


@pytest.mark.parametrize("case", STREAMS)
def test_a_rule_broken_ends_the_stream_alone(peer: Peer, server: Echo, case: str) -> None:
    of, sent, code = STREAMS[case]
    peer.send(peer.head(1, of) + sent)
    assert peer.reset(1) == code
    peer.send(split(bytes(100), 1, end=True))  # may still be on its way
    peer.call(3, "/t/Echo", message(b"x"))
    assert peer.answer(3)[1] == message(b"x")
    server.kept.clear()


def test_rapid_reset(server: Echo) -> None:
    """CVE-2023-44487: calls that are begun and taken back, again and again."""
    one = Peer(server.port)
    for stream in range(1, 2000, 2):
        one.send(
            one.head(stream, fields("/t/Keep")) + split(message(b"x"), stream, end=False) + frame(frames.RST_STREAM, 0, stream, bytes(4))
        )
    assert one.ended() == Error.ENHANCE_YOUR_CALM
    until(lambda: server.server.calls == 0)
    server.kept.clear()


def test_streams_are_bounded() -> None:
    with echo(calls=4) as server:
        one, other = Peer(server.port), Peer(server.port)
        for stream in (1, 3, 5, 7, 9):
            one.send(one.head(stream, fields(SLOT)))
        assert one.reset(9) == Error.REFUSED_STREAM
        other.call(1, "/t/Echo", message(b"x"))
        assert other.answer(1)[0]["grpc-status"] == "8"
        one.send(frame(frames.RST_STREAM, 0, 1, bytes(4)))
        until(lambda: server.server.calls == 3)
        other.call(3, "/t/Echo", message(b"x"))
        assert other.answer(3)[0]["grpc-status"] == "0"


def test_who_needs_no_key_gets_half_of_the_calls() -> None:
    with echo(calls=4) as server:
        one = Peer(server.port)
        for stream in (1, 3, 5):
            one.send(one.head(stream, fields("/t/ForAll")))
        assert one.answer(5)[0]["grpc-status"] == "8"
        one.call(7, "/t/Echo", message(b"x"))
        assert one.answer(7)[0]["grpc-status"] == "0"


# ---- flow control and memory


def test_what_is_not_answered_is_not_read() -> None:
    """Eight messages are taken, and a window's worth waits; nothing more may come until there are answers, which keep their order."""
    bodies = [b"%05d" % number * 2000 for number in range(200)]
    left, got, checked = b"".join(map(message, bodies)), b"", False
    other = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    with echo() as server:
        one = Peer(server.port, b"")
        other.initiate_connection()
        other.send_headers(1, fields("/t/Keep"))
        one.send(other.data_to_send())
        other.receive_data(one.socket.recv(65536))
        while len(got) < 200 * 10_005:
            while left and (size := min(other.local_flow_control_window(1), 16_384, len(left))) > 0:
                other.send_data(1, left[:size])
                left = left[size:]
            one.send(other.data_to_send())
            if not checked:
                until(lambda: len(server.kept) == 8)
                until(lambda: server.admission.bytes == 256 * 1024)  # all that may come, of 2 MB, and it has room
                checked = True
            assert len(server.kept) <= 8
            server.release()
            for event in other.receive_data(one.socket.recv(65536)):
                if isinstance(event, h2.events.DataReceived):
                    got += event.data
                    other.acknowledge_received_data(event.flow_controlled_length, 1)
        one.close()
    assert got == b"".join(map(message, bodies))


def test_more_than_the_window(peer: Peer, server: Echo) -> None:
    peer.send(peer.head(1, fields("/t/Keep")) + split(message(b"x") * 8 + bytes(400_000), 1, end=False))
    assert peer.reset(1) == Error.FLOW_CONTROL_ERROR
    server.kept.clear()


def test_where_there_is_no_room() -> None:
    with echo(max_bytes=1_000_000) as server:
        one = Peer(server.port)
        for stream in (1, 3, 5):
            one.send(one.head(stream, fields("/t/Echo")) + frame(frames.DATA, 0, stream, b"\0" + (450_000).to_bytes(4)))
        found, _ = one.answer(5)
        assert (found["grpc-status"], found["retry-after"]) == ("14", "2")
        assert server.admission.bytes == 2 * 450_005
        one.close()
        until(lambda: server.admission.bytes == 0)
        works(server)


def test_answers_wait_for_the_peers_window(peer: Peer) -> None:
    peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 3}))
    peer.call(1, "/t/Echo", message(b"abc"))
    pieces: list[bytes] = []
    for kind, flags, _, payload in peer.frames():
        if kind == frames.DATA:
            pieces.append(payload)
            peer.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 5}) if len(pieces) == 1 else frames.window_update(1, 4))
        if kind == frames.HEADERS and flags & frames.END_STREAM:
            break
    assert pieces == [message(b"abc")[:3], message(b"abc")[3:5], message(b"abc")[5:]]


# ---- patience


@pytest.mark.parametrize(
    "sent", [b"", frames.PREFACE[:5], frames.PREFACE, PREFACE + bytes(5), PREFACE + frame(frames.HEADERS, 0, 1, b"\x83")]
)
def test_who_does_not_go_on_is_cut_off(hasty: Echo, sent: bytes) -> None:
    assert Peer(hasty.port, sent).ended() is None


@pytest.mark.parametrize(
    ("path", "sent"), [("/t/Echo", b""), ("/t/Echo", message(b"x")), ("/t/Stream", message(b"xy")[:-1]), ("/t/Stream", b"\0")]
)
def test_a_body_that_drips(hasty: Echo, path: str, sent: bytes) -> None:
    one = Peer(hasty.port)
    one.send(one.head(1, fields(path)) + frame(frames.DATA, 0, 1, sent))
    assert one.answer(1)[0]["grpc-status"] == "4"
    one.close()


def test_an_idle_stream_lives_as_long_as_its_peer_answers_pings(hasty: Echo) -> None:
    one = Peer(hasty.port)
    one.send(one.head(1, fields("/t/Stream")))
    seen = 0
    for kind, flags, _, payload in one.frames():
        if kind == frames.PING and not flags:
            one.send(frame(frames.PING, frames.ACK, 0, payload))
            seen += 1
            if seen == 3:
                break
    one.send(split(message(b"x"), 1, end=True))
    assert one.answer(1) == ({":status": "200", "content-type": "application/grpc", "grpc-accept-encoding": "identity,deflate,gzip",
                              "grpc-status": "0"}, message(b"x"))  # fmt: skip
    assert one.ended() is None  # it answers no more


def test_who_gives_no_window_loses_the_stream(hasty: Echo) -> None:
    one = Peer(hasty.port)
    one.send(one.head(1, fields("/t/Large")) + split(message(b"100000"), 1, end=True))
    assert one.reset(1) == Error.CANCEL
    one.close()


def test_who_does_not_read_is_cut_off(hasty: Echo) -> None:
    """Windows without end, and a socket that nobody reads: what waits is bounded, and the connection ends."""
    one = Peer(hasty.port)
    one.send(frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31 - 1}) + frames.window_update(0, 2**30))
    one.send(one.head(1, fields("/t/Large")) + split(message(b"4000000") * 8, 1, end=False))
    until(lambda: any(other.choked for other in list(hasty.server.connections)))
    until(lambda: not hasty.server.connections)
    assert hasty.server.calls == 0
    one.close()
    works(hasty)


def test_an_idle_connection_makes_room_for_a_new_one(hasty: Echo) -> None:
    def acknowledge(one: Peer) -> int | None:
        for kind, flags, _, payload in one.frames():
            if kind == frames.PING and not flags:
                one.send(frame(frames.PING, frames.ACK, 0, payload))
            if kind == frames.GOAWAY:
                return int.from_bytes(payload[4:8])
        return None

    until(lambda: not hasty.server.connections)
    idle = [Peer(hasty.port) for _ in range(8)]
    told: list[int | None] = []
    readers = [threading.Thread(target=lambda one=one: told.append(acknowledge(one))) for one in idle]
    for reader in readers:
        reader.start()
    until(lambda: sum(one.idle_since < hasty.loop.time() - 0.2 for one in list(hasty.server.connections)) == 8)
    works(hasty)
    until(lambda: len(told) == 1)
    assert told == [Error.NO_ERROR]
    for one in idle:
        one.socket.shutdown(2)
    for reader in readers:
        reader.join()


def test_connections_are_bounded() -> None:
    with echo(connections=2) as server:
        held = [Peer(server.port), Peer(server.port)]
        for one in held:
            one.send(one.head(1, fields("/t/Stream")))
        until(lambda: server.server.calls == 2)
        assert Peer(server.port).ended() is None
        for one in held:
            one.send(split(message(b"x"), 1, end=True))
            assert one.answer(1)[1] == message(b"x")


# ---- the end


def test_it_stops_with_what_is_in_flight() -> None:
    server = Echo(Bounds())
    one, idle = Peer(server.port), Peer(server.port)
    one.send(one.head(1, fields("/t/Keep")) + split(message(b"a") + message(b"b"), 1, end=False) + one.head(3, fields("/t/Echo")))
    until(lambda: len(server.kept) == 2)
    until(lambda: len(server.server.connections) == 2)
    stopping = threading.Thread(target=server.stop, args=(20,))
    stopping.start()
    assert idle.ended() == Error.NO_ERROR
    goodbyes = (int.from_bytes(payload[:4]) for kind, _, _, payload in one.frames() if kind == frames.GOAWAY)
    assert (next(goodbyes), next(goodbyes)) == (2**31 - 1, 3)
    one.send(one.head(5, fields("/t/Echo")))
    assert one.reset(5) == Error.REFUSED_STREAM
    one.send(split(message(b"c"), 3, end=True))
    assert one.answer(3)[1] == message(b"c")
    server.release()
    found, data = one.answer(1)
    assert (found["grpc-status"], data) == ("14", message(b"a") + message(b"b"))
    assert one.ended() is None
    stopping.join()
    assert (server.admission.bytes, server.server.calls) == (0, 0)
