"""HTTP/1.1 as the collector needs it: an asyncio protocol on llhttp (httptools), one request of a connection after the other.

What a client can do to it is bounded: a request has one deadline from its first byte to its last; a connection that asks for nothing, or
does not read its answer, has one too; heads, bodies, connections and the bytes of all requests that are unanswered have limits. Who goes
beyond one is told so in JSON, and the connection is closed.
"""

import asyncio
import math
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import cache
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools
import msgspec

from collector.admission import Admission
from collector.listening import SWEEP_EVERY, Listening
from headrace.dead_letter import Unavailable

_LAST_CALL = 0.3  # seconds that a connection stays open for what its client has sent already, when the server stops
_LINGER = 2.0  # seconds that a client which is refused in the middle of its request gets to read why
_PIPELINED = 64  # requests that may wait on one connection; beside their bodies they cost memory that nobody counts
_HEADER_BYTES = 4  # of a header besides its name and value: the colon, a space and the end of the line
_CHUNK_BYTES = (
    8  # read for one byte of a body at most (in chunks of one byte, 6); all beyond counts as head: extensions of chunks, trailers
)

_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_HEAD = 2048  # bytes of a head that is remembered
_MOST_HEADS = 512
_RARE = frozenset({"transfer-encoding", "expect", "upgrade", "trailer", "te"})


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    media_type: str = "application/json"


def error(status: int, code: str, message: str, *headers: tuple[str, str]) -> Answer:
    """The form of every error: a JSON object with `code` and `message`."""
    return Answer(status, msgspec.json.encode({"code": code, "message": message}), headers)


class Head:
    """The head of a request of the ordinary kind: POST, with a length, on a connection that stays open."""

    __slots__ = ("headers", "length", "note", "path", "query", "url")

    def __init__(self, request: "Request", url: bytes) -> None:
        self.url, self.path, self.query, self.headers, self.length = url, request.path, request.query, request.headers, len(request.body)
        self.note: Any = None
        """What the handler likes to remember with it."""


class Request(NamedTuple):
    """A request that was received whole. Names of headers are in lower case; a repeated header's values stand with commas between."""

    method: str
    path: str
    query: bytes
    headers: dict[str, str]
    body: bytes
    client: str | None  # address
    http10: bool = False
    keep_alive: bool = True
    head: Head | None = None  # where the same head came before


class Heads:
    """Heads that came before, so that the same bytes need not be read again: of one client they hardly differ.

    What a head says is llhttp's to decide. Here stand only heads that it has read, each of a request that came whole and in one piece.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body, where `data` is one whole request whose head is known."""
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        head = self._known.get(data[:end])
        return (head, data[end:]) if head is not None and len(data) == end + head.length else None

    def learn(self, data: bytes, url: bytes, request: Request) -> None:
        """Remember the head of `request`, which llhttp read from `data` alone, where it is of the ordinary kind."""
        end = data.find(_END_OF_HEAD, 0, _LONGEST_HEAD) + len(_END_OF_HEAD)
        headers = request.headers
        ordinary = request.method == "POST" and request.keep_alive and not request.http10 and _RARE.isdisjoint(headers)
        if ordinary and headers.get("content-length") == str(len(request.body)) and data[end:] == request.body:
            if len(self._known) >= _MOST_HEADS:
                self._known.clear()
            self._known[data[:end]] = Head(request, url)


class Bounds(NamedTuple):
    """What clients may do. Sizes in bytes, times in seconds."""

    request_bytes: int = 500_000  # of a body, as sent
    head_bytes: int = 32 * 1024  # of the request line and the headers
    connections: int = 4096
    receive_seconds: float = 9.0  # from the first byte of a request to its last
    idle_seconds: float = 9.0  # without a request


Handler = Callable[[Request], Awaitable[Answer]]
Answered = Callable[[Answer], None]
AtOnce = Callable[[Request, Answered], bool]
Dress = Callable[[str, dict[str, str], Answer], Answer]  # given the path and the headers of the request


class Server(Listening["_Connection"]):
    """Serves `handler` on one listening socket. `handler` must not raise."""

    def __init__(self, handler: Handler, bounds: Bounds, admission: Admission, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(admission, bounds.receive_seconds, tls)
        self.handler = handler
        self.dressed: Dress = lambda _, __, answer: answer  # what is done to a refusal before it is sent
        # Takes a request whose head came before, and has it answered later, without a task; or leaves it, and says so, to `handler`.
        self.at_once: AtOnce = lambda _, __: False
        self.heads = Heads()
        self.bounds = bounds
        self.stopping = False
        self.date = b""

    def _connection(self) -> "_Connection":
        return _Connection(self)

    async def _ask_to_leave(self) -> None:
        self.stopping = True
        for connection in list(self.connections):
            connection.stop()

    def _cut_off(self, late: float) -> None:
        for connection in [one for one in self.connections if one.holds_up(late)]:
            connection.too_slow()

    def _look(self) -> None:
        self.date = formatdate(usegmt=True).encode()
        for connection in [one for one in self.connections if one.expires <= self.now]:
            connection.too_slow()


class _Connection(asyncio.Protocol):
    """One connection. The methods named `on_…` are llhttp's events."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._bounds = server.bounds
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request | Answer] = deque()  # requests that wait for the one being served; an Answer is the last word
        self._busy = False  # a request is being served
        self._receiving = False  # a request has begun and not ended
        self._in_head = False
        self._ended = False  # nothing more is read from this client
        self._half_closed = False
        self._choked = False  # the client does not read its answers
        self.began = 0.0  # when the request that is received began
        self._held = 0  # bytes of this connection in the server's admission
        self._part = 0  # those of the request that is being received
        self._served = 0  # those of the request that is being served
        self._manner = (False, False, False)  # of that request: keep alive, HTTP/1.0, HEAD
        self._size = 0  # of the body that is being received
        self._beside = 0  # bytes read since a request began, less what its body allows for
        self.expires = math.inf

    # ---- the connection

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        server = self._server
        self.expires = server.loop.time() + self._bounds.receive_seconds
        if len(server.connections) >= self._bounds.connections:
            self._last_word(error(503, "busy", "too many connections: try again", ("retry-after", "2")))
            transport.close()
            return
        peer = transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) else None
        server.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._ended = True
        self._server.connections.discard(self)
        self._queue.clear()
        self._give(self._held - self._served)
        del self._parser  # it holds this object, so that only the garbage collector would find both

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        fresh = not self._receiving and len(self._queue) < _PIPELINED
        known = self._server.heads.find(data) if fresh else None
        if known:
            self._receive(*known)
        else:
            self._read(data)
            if fresh and not self._receiving and len(self._queue) == 1 and isinstance(first := self._queue[0], Request):
                self._server.heads.learn(data, self._url, first)
        if self._queue:
            if self._busy:
                self._transport.pause_reading()
            else:
                self._go()

    def _read(self, data: bytes) -> None:
        self._beside += len(data)
        rest = data
        try:
            while rest and not self._ended:
                rest = self._feed(rest)
        except httptools.HttpParserError:
            self._refuse(400, "bad_request", "this is not an HTTP request")
        unfinished = len(data) - data.rfind(b"\n") if self._in_head else 0  # of a line, which llhttp keeps until it is whole
        if self._receiving and max(self._beside, unfinished) > self._bounds.head_bytes:
            self._refuse_head()

    def _feed(self, data: bytes) -> bytes:
        """Let llhttp read `data`, and return what it left."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # we speak HTTP/1.1 only, and may ignore the wish (RFC 9110, 7.8)
            self._parser = httptools.HttpRequestParser(self)
            return data[upgrade.args[0] :]
        return b""

    def eof_received(self) -> bool:
        self._half_closed = True
        asked = self._busy or bool(self._queue)
        return asked and self._server.tls is None  # a client may shut down its side and still wait for the answer

    def pause_writing(self) -> None:
        self._choked = True
        self.expires = self._server.loop.time() + self._bounds.receive_seconds

    def resume_writing(self) -> None:
        self._choked = False
        self.expires = math.inf if self._busy else self._server.loop.time() + self._bounds.idle_seconds
        self._go()

    def holds_up(self, late: float) -> bool:
        """Whether it has room for a body that began before `late`, and is not here yet."""
        return self._receiving and not self._ended and self._part > 0 and self.began < late

    def too_slow(self) -> None:
        """The deadline of what the client has to do now is over."""
        if self._receiving and not self._choked and not self._ended:
            self._refuse(408, "too_slow", "the request took too long to come: it must be here whole within seconds")
            self._go()
        else:
            self.abort()

    def stop(self) -> None:
        """Serve what was received or is on its way, and no more."""
        if not self._busy and not self._receiving:
            self.expires = self._server.loop.time() + _LAST_CALL

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # ---- what llhttp sees

    def on_message_begin(self) -> None:
        self._receiving = self._in_head = True
        self.began = self._server.loop.time()
        self._url = b""
        self._headers: dict[str, str] = {}
        self._head_size = self._beside = self._size = self._part = 0
        self._parts: list[bytes] = []
        self.expires = self.began + self._bounds.receive_seconds
        if len(self._queue) >= _PIPELINED:
            self._refuse(503, "busy", f"more than {_PIPELINED} requests at once on one connection", ("retry-after", "2"))

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._bounds.head_bytes:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + _HEADER_BYTES
        if self._ended or self._head_size > self._bounds.head_bytes:
            self._refuse_head()
            return
        if not self._in_head:  # a trailer: nobody checked that what it says may come so late (RFC 9110, 6.5.1)
            return
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self._ended:
            return
        self._in_head = False
        headers = self._headers
        if self._head_size + len(self._url) > self._bounds.head_bytes:
            self._refuse_head()
        elif "host" not in headers and self._parser.get_http_version() == "1.1":
            self._refuse(400, "bad_request", "the request has no Host header (RFC 9112, 3.2)")
        elif "content-length" in headers and int(headers["content-length"]) > self._bounds.request_bytes:
            self._refuse_body()
        elif self._parser.get_method() == b"CONNECT":  # has no body whatever its headers say: what follows would be read as requests
            self._refuse(405, "method_not_allowed", "CONNECT is not allowed: this is no proxy", ("allow", "GET, HEAD, POST, OPTIONS"))
        elif not self._reserve(int(headers.get("content-length", 0))):  # at once: of many bodies read half, none would come to its end
            return
        elif "expect" in headers:
            if headers["expect"].lower() != "100-continue":
                self._refuse(417, "expectation_failed", "the only expectation that can be met is 100-continue")
            elif not self._busy and not self._queue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._size += len(body)
        self._beside -= len(body) * _CHUNK_BYTES
        if self._size > self._bounds.request_bytes:
            self._refuse_body()
        elif self._size <= self._part or self._reserve(self._size - self._part):
            self._parts.append(body)

    def _receive(self, head: Head, body: bytes) -> None:
        """A whole request, whose head came before: what llhttp's events would have come to."""
        self._receiving, self._part, self._url, self._headers = True, 0, head.url, head.headers
        if self._reserve(len(body)):
            self._receiving, self._part, self.expires = False, 0, math.inf
            self._queue.append(Request("POST", head.path, head.query, head.headers, body, self._client, head=head))

    def _reserve(self, size: int) -> bool:
        """Count bytes of the body that is received; False where there is no room, and the request is refused."""
        try:
            self._server.admit(size)
        except Unavailable as full:
            self._refuse(503, "unavailable", f"{full}: send it again", ("retry-after", "2"))
            return False
        self._held += size
        self._part += size
        return True

    def on_message_complete(self) -> None:
        if self._ended:
            return
        self._receiving = False
        self._part = 0  # of a request that waits now
        self.expires = math.inf
        path, _, query = self._url.partition(b"?")
        if path[:1] != b"/":
            path = httptools.parse_url(self._url).path or b"/" if b"://" in path else path
        parser, parts = self._parser, self._parts
        self._queue.append(
            Request(
                parser.get_method().decode("latin-1"),
                _text_of(path),
                query,
                self._headers,
                parts[0] if len(parts) == 1 else b"".join(parts),
                self._client,
                parser.get_http_version() == "1.0",
                parser.should_keep_alive(),
            )
        )
        self._parts = []

    # ---- answering

    def _refuse_head(self) -> None:
        self._refuse(431, "head_too_large", f"the request line and the headers have more than {self._bounds.head_bytes} bytes")

    def _refuse_body(self) -> None:
        self._refuse(413, "too_large", f"the request has more than {self._bounds.request_bytes} bytes: send fewer events at once")

    def _refuse(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        """After what was asked before is answered, say this and close. Nothing more is read."""
        if not self._ended:
            answer = error(status, code, message, *headers)
            if self._receiving and not self._in_head:
                answer = self._server.dressed(_text_of(self._url.partition(b"?")[0]), self._headers, answer)
            self._ended, self._receiving, self._in_head, self._parts = True, False, False, []
            self._give(self._part)
            self._part = 0
            self._queue.append(answer)

    def _go(self) -> None:
        if self._queue and not self._busy and not self._choked:
            first = self._queue.popleft()
            if isinstance(first, Answer):
                self._last_word(first)
            else:
                self._busy = True
                self._served = len(first.body)
                if not self._receiving:
                    self.expires = math.inf
                self._manner = (first.keep_alive, first.http10, first.method == "HEAD")
                if first.head is None or not self._at_once(first):
                    self._task = self._server.loop.create_task(self._serve(first))  # held here, as loops hold tasks only weakly

    def _at_once(self, request: Request) -> bool:
        try:
            return self._server.at_once(request, self._answer)
        except Exception:  # the handler will meet it, too, and knows how to say so
            return False

    async def _serve(self, request: Request) -> None:
        self._answer(await self._server.handler(request))

    def _answer(self, answer: Answer) -> None:
        """The answer to the request that is served."""
        keep_alive, http10, head_only = self._manner
        self._busy = False
        self._give(self._served)
        self._served = 0
        transport = self._transport
        if transport.is_closing():
            return
        last = not self._queue and (self._server.stopping or self._half_closed)
        keep_alive = keep_alive and not last
        extra = b"connection: close\r\n" if not keep_alive else b"connection: keep-alive\r\n" if http10 else b""
        transport.write(_encoded(answer, extra, self._server.date, head_only=head_only))
        if not keep_alive:
            self._ended = True
            transport.close()
            return
        if not self._receiving and not self._choked:
            self.expires = self._server.now + self._bounds.idle_seconds + SWEEP_EVERY
        if self._queue:
            self._go()
        elif not self._ended:
            transport.resume_reading()

    def _give(self, size: int) -> None:
        """So many bytes are held no more."""
        self._held -= size
        self._server.admission.give(size)

    def _last_word(self, answer: Answer) -> None:
        """Answer, and let the client read it although it may still be sending: closing at once would reset the connection."""
        transport = self._transport
        self._ended = True
        if transport.is_closing():
            return
        transport.write(_encoded(answer, b"connection: close\r\n", self._server.date))
        if transport.can_write_eof() and not self._half_closed:
            transport.write_eof()
            transport.resume_reading()
            self.expires = self._server.loop.time() + _LINGER
        else:
            transport.close()


def _text_of(path: bytes) -> str:
    text = path.decode("latin-1")
    return unquote(text) if "%" in text else text


@cache
def _start_of(status: int, media_type: str) -> bytes:
    start = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    return (start if status == 204 else f"{start}content-type: {media_type}\r\n").encode()


def _encoded(answer: Answer, extra: bytes, date: bytes, *, head_only: bool = False) -> bytes:
    head = b"%bdate: %b\r\n%b" % (_start_of(answer.status, answer.media_type), date, extra)
    if answer.headers:
        more = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        if more.count("\n") != len(answer.headers) or more.count("\r") != len(answer.headers):
            raise ValueError("a header of an answer holds a line break")
        head += more.encode("latin-1")
    if answer.status == 204:
        return head + b"\r\n"
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(answer.body), b"" if head_only else answer.body)
