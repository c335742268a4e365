"""gRPC on a stream of HTTP/2 (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md): messages in, answers out in their order, and a status.

A message finds room in the admission before it is taken into memory, and keeps it until its answer is on its way. A few messages of a
stream are taken ahead; what comes beyond them waits in the stream's window, which is not given back: that is the flow control.
"""

import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog

from collector.http2.connection import Bounds, Connection, Stream
from collector.http2.frames import Error
from collector.http2.headers import packed
from collector.inflate import Corrupt, TooLong, inflate
from headrace.dead_letter import Unavailable

_AHEAD = 8  # messages of a stream that are taken and not answered yet
_PREFIX = Struct(">BL")  # of a message: whether it is compressed, and its length
_PREFIX_BYTES = 5
_ENCODINGS = "identity,deflate,gzip"
_MOST_SAID = 1000  # characters of a problem
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if code != 0x25)  # what needs no escape in grpc-message
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])").fullmatch
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LATE = "the request took too long to come: it must be here whole within seconds"

_log = structlog.get_logger()


class Code(IntEnum):
    """How a call ends (doc/statuscodes.md)."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Refusal(NamedTuple):
    """How a call ends that is not answered well."""

    code: Code
    problem: str
    trailer: tuple[tuple[str, str], ...] = ()


class Caller:
    """Who calls, as the connection and the metadata say."""

    __slots__ = ("address", "metadata", "note")

    def __init__(self, address: str | None, metadata: Mapping[bytes, bytes]) -> None:
        self.address = address
        self.metadata = metadata
        self.note: Any = None
        """What a method likes to remember with it."""


class Place:
    """The place of an answer among those of a call. Called with the answer, once; before that, `more` may send others."""

    __slots__ = ("_call", "answer", "held", "stop")

    def __init__(self, call: "Call", held: int) -> None:
        self._call: Call | None = call
        self.held = held  # bytes in the admission
        self.answer: bytes | Refusal | None = None
        self.stop: Callable[[], object] | None = None  # what is done where nobody waits for the answer any more

    def __call__(self, answer: bytes | Refusal) -> None:
        if self._call is not None and self.answer is None:
            self.answer = answer
            self.stop = None
            self._call.answered(self)

    def more(self, message: bytes) -> None:
        """A message of an answer that goes on."""
        if self._call is not None:
            self._call.say(message)

    def leave(self) -> None:
        """Nobody waits for it any more."""
        self._call = None
        if self.stop is not None:
            self.stop()


Serve = Callable[[bytes, Caller, Place], None]


class Method(NamedTuple):
    """A method. `serve` is given a message, and has its place answered, at once or later; `refuses` says who may not call it.

    Where everybody may, they get half of the calls that there may be, so that nobody without a key can keep all for himself.
    """

    serve: Serve
    streams: bool = False  # any number of messages, each with an answer
    refuses: Callable[[Caller], Refusal | None] | None = None


class _Head(NamedTuple):
    """What follows from a request's fields, which hardly differ between the calls of a connection."""

    fields: Mapping[bytes, bytes]
    method: Method | None
    caller: Caller
    encoding: str
    refusal: Refusal | None = None
    not_grpc: tuple[int, str] | None = None  # status and text


_OK_HEAD = packed([(":status", "200"), ("content-type", "application/grpc"), ("grpc-accept-encoding", _ENCODINGS)])
_OK = packed([("grpc-status", "0")])


class Service:
    """All methods by their paths, such as `/package.Service/Method`."""

    def __init__(self, methods: Mapping[str, Method], bounds: Bounds) -> None:
        self.bounds = bounds
        self._methods = {path.encode(): method for path, method in methods.items()}

    def stream(self, connection: Connection, id: int) -> "Call":
        """What `Server` needs."""
        return Call(self, connection, id)

    def head(self, connection: Connection, fields: Mapping[bytes, bytes]) -> _Head:
        """What the fields say, less the timeout."""
        known: _Head | None = connection.note
        if known is None or known.fields is not fields:
            known = connection.note = self._read(Caller(connection.address, fields), fields)
        return known

    def _read(self, caller: Caller, fields: Mapping[bytes, bytes]) -> _Head:
        kind, _, _ = fields.get(b"content-type", b"").partition(b";")
        encoding = fields.get(b"grpc-encoding", b"identity").decode("latin-1").strip().lower()
        method = self._methods.get(fields[b":path"])
        head = _Head(fields, method, caller, encoding)
        if fields[b":method"] != b"POST":
            return head._replace(not_grpc=(405, "this is a server of gRPC: use POST"))
        if kind.strip() != b"application/grpc" and not kind.startswith(b"application/grpc+"):
            return head._replace(not_grpc=(415, "this is a server of gRPC: the content type is application/grpc"))
        if method is None:
            path = fields[b":path"][:200].decode("latin-1")
            return head._replace(refusal=Refusal(Code.UNIMPLEMENTED, f"there is no method {path}: see the reflection service"))
        if encoding not in _ENCODINGS.split(","):
            problem = f"grpc-encoding {encoding[:50]!r} is not supported: use {_ENCODINGS}"
            return head._replace(refusal=Refusal(Code.UNIMPLEMENTED, problem, (("grpc-accept-encoding", _ENCODINGS),)))
        return head


class Call(Stream):
    """One call."""

    __slots__ = (
        *(
            "_admission",
            "_began",
            "_buffer",
            "_caller",
            "_deadline",
            "_deaf",
            "_encoding",
            "_kept",
            "_method",
            "_need",
            "_places",
            "_reading",
        ),
        *("_not_grpc", "_request", "_room", "_said_head", "_service"),
    )

    def __init__(self, service: Service, connection: Connection, id: int) -> None:
        super().__init__(connection, id)
        self._service = service
        self._admission = connection.server.admission
        self._buffer = bytearray()  # what came and is no message yet
        self._need = 0  # bytes of the message that has begun, with its prefix
        self._began = math.inf  # when it did
        self._room = 0  # bytes in the admission for both
        self._kept = 0  # bytes of the buffer that have not found room in the stream's eyes: the window is smaller by them
        self._places: deque[Place] = deque()  # of answers that are not sent yet
        self._request: tuple[bytes, int] | None = None  # of a method with one message: it, and its bytes in the admission
        self._deaf = False  # nothing more is read
        self._reading = False
        self._said_head = False
        self._deadline = math.inf
        self._not_grpc: tuple[int, str] | None = None  # what is answered at its end where it is no call

    # ---- what comes

    def opened(self, head: Mapping[bytes, bytes], timeout: bytes | None) -> None:
        read = self._service.head(self.connection, head)
        self._caller, self._encoding = read.caller, read.encoding
        if read.not_grpc is not None:
            self._deaf, self._not_grpc = True, read.not_grpc
            self.expires = self.connection.server.soon()
            return
        if timeout is not None:
            match = _TIMEOUT(timeout)
            if match is None:
                self._refuse(Refusal(Code.INTERNAL, "the grpc-timeout is not one"))
                return
            self._deadline = self.connection.server.loop.time() + int(match[1]) * _UNITS[match[2]]
        if read.method is None or read.refusal is not None:
            self._refuse(read.refusal or Refusal(Code.UNIMPLEMENTED, "no such method"))
            return
        self._method = method = read.method
        most = self._service.bounds.calls
        if self.connection.server.calls > (most if method.refuses else (most + 1) // 2):
            self._refuse(Refusal(Code.RESOURCE_EXHAUSTED, "too many calls at once: send it again", (("retry-after", "2"),)))
        elif method.refuses and (refusal := method.refuses(read.caller)):
            self._refuse(refusal)
        elif not method.streams:
            self.expires = self.connection.server.soon()

    def received(self, data: memoryview) -> None:
        if self._deaf:
            return
        self._buffer += data
        if len(self._buffer) >= self._need and not self._reading:
            self._read()
        self._settle(len(data))

    def _settle(self, size: int) -> None:
        """Count what came, and let as much come again as has found room."""
        if self._deaf:
            return
        there = len(self._buffer)
        if self._room != (room := max(there, self._need)) and not self._reserve(room):
            return
        kept = there if self._held_back else 0
        if there and not kept and self.expires == math.inf:  # a message has begun
            self.expires = self.connection.server.soon()
        self.consume(size + self._kept - kept)
        self._kept = kept

    @property
    def _held_back(self) -> bool:
        return not self._need and len(self._places) >= _AHEAD

    def _read(self) -> None:
        """Take the messages that are whole, as long as few enough are unanswered."""
        buffer, at, self._reading = self._buffer, 0, True
        most = self._service.bounds.message_bytes
        while len(buffer) - at >= _PREFIX_BYTES and len(self._places) < _AHEAD and not self._deaf:
            flag, length = _PREFIX.unpack_from(buffer, at)
            if length > most:
                self._refuse(Refusal(Code.RESOURCE_EXHAUSTED, f"Received message larger than max ({length} vs. {most})"))
                break
            end = at + _PREFIX_BYTES + length
            if not self._reserve(max(len(buffer), end) - at):
                break
            if end > len(buffer):
                if not self._need:
                    self._began = self.connection.server.now
                self._need = end - at
                break
            with memoryview(buffer) as view:
                message = bytes(view[at + _PREFIX_BYTES : end])
            at, self._need, self._began = end, 0, math.inf
            self._room -= _PREFIX_BYTES + length
            self._take(flag, message, _PREFIX_BYTES + length)
        self._reading = False
        if at and not self._deaf:
            del buffer[:at]

    def _reserve(self, size: int) -> bool:
        """Have room for so many bytes; False where there is none, and the call is refused."""
        if size > self._room:
            try:
                self.connection.server.admit(size - self._room)
            except Unavailable as full:
                self._refuse(Refusal(Code.UNAVAILABLE, f"{full}: send it again", (("retry-after", "2"),)))
                return False
            if self._deaf:  # it was one of those that took long
                self._give(size - self._room)
                return False
            self._room = size
        elif size < self._room:
            self._admission.give(self._room - size)
            self._room = size
        return True

    def _take(self, flag: int, message: bytes, held: int) -> None:
        """Serve a message, which holds so much of the admission."""
        if flag:
            try:
                message = self._inflated(flag, message)
                more = max(0, len(message) + _PREFIX_BYTES - held)
                self._admission.take(more)
                held += more
            except Unavailable as full:
                self._give(held)
                self._refuse(Refusal(Code.UNAVAILABLE, f"{full}: send it again", (("retry-after", "2"),)))
                return
            except TooLong:
                self._give(held)
                most = self._service.bounds.message_bytes
                self._refuse(Refusal(Code.RESOURCE_EXHAUSTED, f"Received message larger than max (more than {most} vs. {most})"))
                return
            except Corrupt as problem:
                self._give(held)
                self._refuse(Refusal(Code.INTERNAL, str(problem)))
                return
        if self._method.streams:
            self.expires = math.inf
            self._serve(message, held)
        elif self._request is None:
            self._request = message, held
        else:
            self._give(held)
            self._refuse(Refusal(Code.UNIMPLEMENTED, "this method takes one message"))

    def _inflated(self, flag: int, message: bytes) -> bytes:
        if flag > 1 or self._encoding == "identity":
            raise Corrupt("a message says that it is compressed, and the call does not say how")
        return inflate(message, self._encoding, self._service.bounds.message_bytes)

    def _serve(self, message: bytes, held: int) -> None:
        place = Place(self, held)
        self._places.append(place)
        try:
            self._method.serve(message, self._caller, place)
        except Exception:
            _log.exception("a request could not be served", protocol="grpc")
            place(Refusal(Code.INTERNAL, "the server failed: send it again"))

    def ended(self) -> None:
        if self._not_grpc is not None:
            self._say_plainly(*self._not_grpc)
        elif self._deaf:
            return
        elif self._need or (self._buffer and not self._held_back):
            self._refuse(Refusal(Code.INTERNAL, "the call ended in the middle of a message"))
        elif self._method.streams:
            self._answer()
        elif self._request is None:
            self._refuse(Refusal(Code.UNIMPLEMENTED, "this method takes one message, and none came"))
        else:
            self.expires = math.inf
            (message, held), self._request = self._request, None
            self._serve(message, held)

    def late(self, now: float) -> None:
        if now >= self._deadline and now < math.inf:
            self._finish(Refusal(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        elif now < self.expires:
            return
        elif self._not_grpc is not None:
            self._say_plainly(*self._not_grpc)
        else:
            self._refuse(Refusal(Code.DEADLINE_EXCEEDED, _LATE))

    def holds_up(self, late: float) -> bool:
        return not self._deaf and self._began < late

    def leave(self) -> None:
        if not self._deaf and self._method.streams:
            self._refuse(Refusal(Code.UNAVAILABLE, "the server stops: send it again"))

    def lost(self) -> None:
        self._deaf = True
        self._give(self._room)
        self._room = 0
        self._buffer = bytearray()
        if self._request is not None:
            self._give(self._request[1])
            self._request = None
        places, self._places = self._places, deque()
        for place in places:
            self._give(place.held)
            place.leave()

    # ---- answers

    def answered(self, place: Place) -> None:
        """There is an answer; those before it may be missing yet."""
        if place is self._places[0] and not self.blocked:
            self._answer()
        elif isinstance(place.answer, bytes) and len(place.answer) > place.held:  # it may be larger than its request, and has to wait
            more = len(place.answer) - place.held
            try:
                self._admission.take(more)
                place.held += more
            except Unavailable:
                self.connection.reset(self.id, Error.ENHANCE_YOUR_CALM)

    def sent(self) -> None:
        self._answer()

    def say(self, message: bytes) -> None:
        """A message of an answer that goes on."""
        head, self._said_head = b"" if self._said_head else _OK_HEAD, True
        self.send(head, _PREFIX.pack(0, len(message)) + message, None)

    def _answer(self) -> None:
        """Send the answers whose turn it is, as long as the peer takes them."""
        places = self._places
        while places and not self.blocked and (answer := places[0].answer) is not None:
            place = places.popleft()
            self._admission.give(place.held)
            if isinstance(answer, Refusal):
                self._finish(answer)
                return
            self.connection.useful()
            last = None if places or self.hears or self._buffer or self._deaf else _OK
            head, self._said_head = b"" if self._said_head else _OK_HEAD, True
            self.send(head, _PREFIX.pack(0, len(answer)) + answer, last)
            if last is not None:
                return
        if self.over:
            return
        if self._kept and not self._reading and not self._held_back and not self._deaf:
            self._go_on()
        if not places and not self.hears and not self._buffer and not self.blocked and not self._deaf:
            self._deaf = True
            head = b"" if self._said_head else _OK_HEAD
            self.send(head, b"", _OK)

    def _go_on(self) -> None:
        """Read what was held back."""
        self._read()
        self._settle(0)
        if self._deaf:
            return
        if not self.hears and self._buffer and not self._held_back:
            self._refuse(Refusal(Code.INTERNAL, "the call ended in the middle of a message"))

    def _refuse(self, refusal: Refusal) -> None:
        """End with this, once what came before is answered. Nothing more is read."""
        if self._deaf:
            return
        self._deaf = True
        self.expires = self._began = math.inf
        self._give(self._room)
        self._room = self._need = 0
        self._buffer = bytearray()
        place = Place(self, 0)
        self._places.append(place)
        place(refusal)

    def _say_plainly(self, status: int, text: str) -> None:
        self._not_grpc, self.expires = None, math.inf
        self.send(packed([(":status", str(status)), ("content-type", "text/plain; charset=utf-8")]), text.encode(), b"")

    def _finish(self, refusal: Refusal) -> None:
        """End with this now."""
        self._deaf, self._deadline = True, math.inf
        trailers = _trailers(refusal)
        if self._said_head:
            self.send(b"", b"", trailers)
        else:
            self._said_head = True
            self.send_alone(packed([(":status", "200"), ("content-type", "application/grpc")]) + trailers)

    def _give(self, size: int) -> None:
        self._admission.give(size)


def _trailers(refusal: Refusal) -> bytes:
    message = quote(refusal.problem[:_MOST_SAID], safe=_PRINTABLE)
    return packed([("grpc-status", str(int(refusal.code))), ("grpc-message", message), *refusal.trailer])
