"""The other side of HTTP/2, frame by frame, so that it can also do what no library does; and a server for it."""

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from struct import pack
from typing import Any

import uvloop
from hpack import Decoder, Encoder

from collector import http2
from collector.admission import Admission
from collector.http2 import frames
from collector.http2.calls import Caller, Method, Place, Service
from collector.http2.connection import Connection
from collector.http2.frames import frame

PREFACE = frames.PREFACE + frames.settings({})
Fields = list[tuple[str, str]]
_LOOP = asyncio.new_event_loop()  # for its clock


def fields(path: str, *more: tuple[str, str]) -> Fields:
    """Those of a call."""
    return [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("content-type", "application/grpc"),
        ("te", "trailers"), *more,
    ]  # fmt: skip


def message(body: bytes, flag: int = 0) -> bytes:
    """A message of gRPC."""
    return pack(">BL", flag, len(body)) + body


def split(body: bytes, stream: int, *, end: bool) -> bytes:
    """DATA frames."""
    pieces = [body[at : at + frames.MAX_FRAME] for at in range(0, len(body), frames.MAX_FRAME)] or [b""]
    return b"".join(frame(frames.DATA, frames.END_STREAM * (end and one is pieces[-1]), stream, one) for one in pieces)


class Peer:
    """A client. It acknowledges nothing, gives no window, and reads only what it is asked to."""

    def __init__(self, port: int, hello: bytes = PREFACE) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._encoder, self._decoder = Encoder(), Decoder()
        self._got = b""
        self.send(hello)

    def send(self, data: bytes) -> None:
        """Bytes as they are; no error where the server has closed."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def head(self, stream: int, of: Fields, flags: int = frames.END_HEADERS) -> bytes:
        """A HEADERS frame. Each must be sent, in this order."""
        return frame(frames.HEADERS, flags, stream, self._encoder.encode(of))

    def call(self, stream: int, path: str, body: bytes, *more: tuple[str, str]) -> None:
        """Send a whole call with `body`."""
        self.send(self.head(stream, fields(path, *more)) + split(body, stream, end=True))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of each frame until the server closes."""
        while True:
            while len(self._got) < 9 or len(self._got) < 9 + int.from_bytes(self._got[:3]):
                try:
                    more = self.socket.recv(65536)
                except ConnectionError:
                    return
                if not more:
                    return
                self._got += more
            size = 9 + int.from_bytes(self._got[:3])
            one, self._got = self._got[:size], self._got[size:]
            yield one[3], one[4], int.from_bytes(one[5:9]), one[9:]

    def ended(self) -> int | None:
        """Read until the connection is closed: the code of the last GOAWAY, or None."""
        codes = [int.from_bytes(payload[4:8]) for kind, _, _, payload in self.frames() if kind == frames.GOAWAY]
        return codes[-1] if codes else None

    def reset(self, stream: int) -> int:
        """The code with which a stream is reset."""
        return next(int.from_bytes(payload) for kind, _, id, payload in self.frames() if kind == frames.RST_STREAM and id == stream)

    def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        """All fields of a stream that ends, and its data."""
        found: dict[str, str] = {}
        data = b""
        for kind, flags, id, payload in self.frames():
            assert kind not in (frames.GOAWAY, frames.RST_STREAM) or id != stream, (kind, payload)
            if kind == frames.HEADERS:
                decoded = {str(name): str(value) for name, value in self._decoder.decode(payload)}
                found |= decoded if id == stream else {}
            if kind == frames.DATA and id == stream:
                data += payload
            if id == stream and kind in (frames.HEADERS, frames.DATA) and flags & frames.END_STREAM:
                return found, data
        raise AssertionError("the server closed")

    def close(self) -> None:
        self.socket.close()


class Echo:
    """A server of gRPC in a thread: what each method does is its name."""

    def __init__(self, bounds: http2.Bounds, max_bytes: int = 4_000_000) -> None:
        self.admission = Admission(max_bytes)
        self.kept: list[tuple[Place, bytes]] = []
        methods = {
            "/t/Echo": Method(self._echo, refuses=lambda _: None),
            "/t/Stream": Method(self._echo, streams=True, refuses=lambda _: None),
            "/t/ForAll": Method(self._echo, streams=True),
            "/t/Keep": Method(self._keep, streams=True),
            "/t/Large": Method(self._large, streams=True),
            "/t/Broken": Method(self._broken),
        }
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = listener.getsockname()[1]
        self.server = http2.Server(Service(methods, bounds).stream, bounds, self.admission)
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.do(self.server.start(listener))

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` on the server's loop, and wait."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def stop(self, grace: float = 0) -> None:
        """End it."""
        self.do(self.server.stop(grace))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def release(self) -> None:
        """Answer what `Keep` holds."""
        kept, self.kept = self.kept, []
        for place, body in kept:
            self.loop.call_soon_threadsafe(place, body)

    @staticmethod
    def _echo(body: bytes, _: Caller, place: Place) -> None:
        place(body)

    def _keep(self, body: bytes, _: Caller, place: Place) -> None:
        self.kept.append((place, body))

    @staticmethod
    def _large(body: bytes, _: Caller, place: Place) -> None:
        place(bytes(int(body)))

    @staticmethod
    def _broken(*_: object) -> None:
        raise RuntimeError("broken")


@contextmanager
def echo(max_bytes: int = 4_000_000, **bounds: float) -> Iterator[Echo]:
    """A server with its own bounds."""
    running = Echo(http2.Bounds(**bounds), max_bytes)  # type: ignore[arg-type]
    try:
        yield running
    finally:
        running.stop()
        assert running.admission.bytes == 0
        assert running.server.calls == 0


class Wire:
    """What a connection is given and gives, without a network between."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False
        methods = {path: Method(lambda body, _, place: place(body), streams=path == "/t/Stream") for path in ("/t/Echo", "/t/Stream")}
        self.server = http2.Server(Service(methods, http2.Bounds()).stream, http2.Bounds(), Admission(4_000_000))
        self.server.loop = _LOOP
        self.connection = Connection(self.server)
        self.connection.connection_made(self)

    def feed(self, data: bytes) -> None:
        """As the loop does it."""
        while data and not self.closed:
            room = self.connection.get_buffer(-1)
            count = min(len(room), len(data))
            room[:count] = data[:count]
            self.connection.buffer_updated(count)
            data = data[count:]

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _: str) -> Any:
        return None

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True
        self.connection.connection_lost(None)

    abort = close
