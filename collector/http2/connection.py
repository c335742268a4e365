"""HTTP/2 as the collector's gRPC needs it (RFC 9113): an asyncio protocol, its streams, and what a peer may do to both.

What a peer can do is bounded: streams, header blocks and frames have limits; a stream's window is given back only for what has found room
in the admission; what it has to do now has a deadline (a message that has begun, a frame, a header block, reading its answers); a
connection on which nothing is heard is pinged; frames that ask for nothing count against those that bring something.
"""

import asyncio
import math
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from collector.admission import Admission
from collector.http2 import frames
from collector.http2.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FIRST_WINDOW,
    HEAD,
    HEAD_BYTES,
    HEADERS,
    MAX_FRAME,
    MAX_WINDOW,
    NUMBER,
    PADDED,
    PREFACE,
    WITH_PRIORITY,
    ConnectionProblem,
    Error,
    StreamProblem,
    frame,
)
from collector.http2.headers import MAX_LIST, Field, Unpacker, check_trailers
from collector.listening import SWEEP_EVERY, Listening

_LAST_CALL = 0.3  # seconds in which a peer learns that the server stops, and what it sent before arrives
_LINGER = 2.0  # seconds that a peer which is cut off gets to read why

_STREAM_WINDOW = 256 * 1024  # bytes of a stream that may come before it has room
_WINDOW = 1024 * 1024  # bytes of a connection; given back at once, since its streams are bounded
_READ_BYTES = 256 * 1024  # at once; larger than any frame
_CONTINUATIONS = 32  # frames that a header block may have
_REMEMBERED = 256  # streams that have ended, of which frames may still be on their way
_SMALL = 64  # bytes of a DATA frame that is hardly worth its price
_MOST_DEBT = 1000  # frames that ask for nothing, beyond those that are paid for
_PAID_BY_MESSAGE = 8  # of them, by a message that is answered well; clients send a few for each (pings, windows)
_PAID_BY_SWEEP = 100
_RESET_COSTS = 2
_PRIORITY_BYTES = 5
_ID = 0x7FFFFFFF


class Bounds(NamedTuple):
    """What peers may do. Sizes in bytes, times in seconds."""

    message_bytes: int = 500_000  # of a message, with and without compression
    connections: int = 256
    calls: int = 256  # over all connections
    receive_seconds: float = 9.0  # from the first byte of a message to its last; for all else that a peer has to do now, too
    idle_seconds: float = 9.0  # from which on a connection without a call may have to make room for a new one
    ping_seconds: float = 30.0  # without a byte, after which a connection must show that it is alive


class Stream:
    """One stream. What a subclass does with it, it does in the methods that are empty here."""

    __slots__ = ("_last", "_unsent", "connection", "due", "expires", "given", "hears", "id", "over", "promised", "unsent_by", "window")

    def __init__(self, connection: "Connection", id: int) -> None:
        self.connection = connection
        self.id = id
        self.hears = True  # the peer may send more
        self.over = False  # nothing can be sent any more
        self.window = connection.first_window  # bytes that may be sent
        self.given = _STREAM_WINDOW  # bytes that may come
        self.due = 0  # bytes that came, found room, and were not given back
        self.promised: int | None = None  # bytes that are yet to come, where the peer said so
        self.expires = math.inf  # when what the peer has to send now must be here
        self.unsent_by = math.inf  # when the peer must have taken what waits for its window
        self._unsent = bytearray()
        self._last: bytes | None = None  # the block of the trailers that follow it

    def opened(self, head: Mapping[bytes, bytes], timeout: bytes | None) -> None:
        """The request's fields: the same object where they are the same as those before on this connection."""

    def received(self, data: memoryview) -> None:
        """A piece of its body, which is there until this returns."""

    def ended(self) -> None:
        """Its end."""

    def sent(self) -> None:
        """What waited for the peer's window is on its way."""

    def lost(self) -> None:
        """It is over."""

    def late(self, now: float) -> None:
        """A deadline may have passed."""

    def leave(self) -> None:
        """The server stops."""

    def holds_up(self, late: float) -> bool:  # noqa: ARG002
        """Whether it has room for a message that began before `late`, and is not here yet."""
        return False

    @property
    def blocked(self) -> bool:
        """Whether something waits for the peer's window."""
        return bool(self._unsent) or self._last is not None

    def consume(self, size: int) -> None:
        """So much of what came has found room: the peer may send as much again."""
        self.due += size
        if self.due >= _STREAM_WINDOW // 2 and self.hears and not self.over:
            self.connection.write(frames.window_update(self.id, self.due))
            self.given += self.due
            self.due = 0

    def send(self, head: bytes, data: bytes, last: bytes | None) -> None:
        """Send the block of a head, where there is one, data, and where this is the end, the block of the trailers (b"" for none)."""
        connection, size = self.connection, len(data)
        out = frame(HEADERS, END_HEADERS, self.id, head) if head else b""
        blocked = self._unsent or self._last is not None or connection.choked
        if blocked or size > self.window or size > connection.window or size > connection.max_frame:
            connection.write(out)
            self._unsent += data
            self._last = last
            self.unsent_by = min(self.unsent_by, connection.server.soon())
            connection.blocked[self.id] = self
            self.pump()
            return
        if size:
            self.window -= size
            connection.window -= size
            out += frame(DATA, 0, self.id, data)
        if last is None:
            connection.write(out)
        else:
            connection.write(out + self._end(last))
            connection.close(self)

    def send_alone(self, block: bytes) -> None:
        """Send the block of a head that is the end as well."""
        self.connection.write(frame(HEADERS, END_HEADERS | END_STREAM, self.id, block))
        self.connection.close(self)

    def pump(self) -> None:
        """Send what the windows allow of what waits for them."""
        connection, unsent = self.connection, self._unsent
        while unsent:
            size = min(len(unsent), self.window, connection.window, connection.max_frame)
            if size <= 0 or connection.choked:
                return
            connection.write(frame(DATA, 0, self.id, bytes(unsent[:size])))
            del unsent[:size]
            self.window -= size
            connection.window -= size
        del connection.blocked[self.id]
        self.unsent_by = math.inf
        if self._last is None:
            self.sent()
        else:
            connection.write(self._end(self._last))
            self._last = None
            connection.close(self)

    def _end(self, last: bytes) -> bytes:
        return frame(HEADERS, END_HEADERS | END_STREAM, self.id, last) if last else frame(DATA, END_STREAM, self.id)


class Server(Listening["Connection"]):
    """Serves streams of one listening socket."""

    def __init__(
        self, stream: Callable[["Connection", int], Stream], bounds: Bounds, admission: Admission, tls: ssl.SSLContext | None = None
    ) -> None:
        """`stream` makes one, given its connection and its number."""
        super().__init__(admission, bounds.receive_seconds, tls)
        self.stream = stream
        self.bounds = bounds
        self.calls = 0
        self.buffer = bytearray(_READ_BYTES)  # of all connections: what is read is taken before anything else is
        self.view = memoryview(self.buffer)

    def _connection(self) -> "Connection":
        return Connection(self)

    async def _ask_to_leave(self) -> None:
        for connection in list(self.connections):
            connection.announce_leaving()
        await asyncio.sleep(_LAST_CALL)
        for connection in list(self.connections):
            connection.leave()

    def soon(self) -> float:
        """When what a peer has to do from now on must be done."""
        return self.now + self.bounds.receive_seconds + SWEEP_EVERY

    def _cut_off(self, late: float) -> None:
        slow = [stream for one in self.connections for stream in one.streams.values() if stream.holds_up(late)]
        for stream in slow:
            stream.late(math.inf)

    def room_for_one(self) -> bool:
        """Whether a connection more may come; one that has asked for nothing for long makes room."""
        if len(self.connections) < self.bounds.connections:
            return True
        idle = [one for one in self.connections if one.idle_since < self.loop.time() - self.bounds.idle_seconds]
        if idle:
            min(idle, key=lambda one: one.idle_since).end(Error.NO_ERROR, "idle")
        return bool(idle)

    def _look(self) -> None:
        for connection in list(self.connections):
            connection.look(self.now)


class Connection(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.note: Any = None
        """What its streams like to remember with it."""
        self.streams: dict[int, Stream] = {}
        self.blocked: dict[int, Stream] = {}  # those that wait for a window
        self.window = FIRST_WINDOW  # bytes that may be sent
        self.first_window = FIRST_WINDOW  # of a stream
        self.max_frame = MAX_FRAME
        self.choked = False  # the peer does not read
        self.idle_since = server.loop.time()
        self._given = _WINDOW  # bytes that may come
        self._unpacker = Unpacker()
        self._rest = b""  # of a frame, or of the preface
        self._greeted = self._settled = False
        self._ended = False  # nothing more is read
        self._leaving = False  # no stream more is taken
        self._last = 0  # the highest stream there was
        self._gone: dict[int, bool] = {}  # streams that have ended, and whether the peer may not know it yet
        self._block: bytearray | None = None  # a header block that is not whole
        self._block_of = (0, 0, 0)  # its stream, its flags, the stream that it depends on
        self._continuations = 0
        self._debt = 0  # frames that ask for nothing
        self._heard = True
        self._heard_at = server.loop.time()
        self._frame_by = self._heard_at + server.bounds.receive_seconds
        self._block_by = self._read_by = self._pong_by = self._gone_by = math.inf

    # ---- the connection

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        bounds, server = self.server.bounds, self.server
        over_tls = transport.get_extra_info("ssl_object")
        if (over_tls is not None and over_tls.selected_alpn_protocol() != "h2") or not server.room_for_one():
            self._ended = True
            transport.close()
            return
        server.connections.add(self)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else None
        ours = {
            frames.MAX_CONCURRENT_STREAMS: bounds.calls,
            frames.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            frames.MAX_HEADER_LIST_SIZE: MAX_LIST,
        }
        self.write(frames.settings(ours) + frames.window_update(0, _WINDOW - FIRST_WINDOW))

    def connection_lost(self, _: Exception | None) -> None:
        self._ended = True
        self.server.connections.discard(self)
        for stream in list(self.streams.values()):
            self._drop(stream, cut=False)
        self._rest = b""

    def write(self, data: bytes) -> None:
        """Send, where the peer is not gone already."""
        transport = self._transport
        if not transport.is_closing():
            transport.write(data)

    def pause_writing(self) -> None:
        self.choked = True
        self._read_by = self.server.soon()
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self.choked = False
        self._read_by = math.inf
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._pump()

    def look(self, now: float) -> None:
        """Cut off a peer that is too slow; ask one that is silent whether it is there."""
        if now >= min(self._frame_by, self._block_by, self._read_by, self._pong_by, self._gone_by):
            self.abort()
            return
        self._debt = max(0, self._debt - _PAID_BY_SWEEP)
        if self._heard:
            self._heard, self._heard_at, self._pong_by = False, now, math.inf
        elif now - self._heard_at > self.server.bounds.ping_seconds and self._pong_by == math.inf and not self._ended:
            self._pong_by = self.server.soon()
            self.write(frame(frames.PING, 0, 0, bytes(8)))
        for stream in list(self.streams.values()):
            if now >= stream.unsent_by:
                self.reset(stream.id, Error.CANCEL)
            else:
                stream.late(now)

    def announce_leaving(self) -> None:
        """Ask the peer to take another connection from now on."""
        if not self._ended:
            self.write(frames.goaway(_ID, Error.NO_ERROR))

    def leave(self) -> None:
        """Finish the streams that there are, and take no more."""
        if self._ended:
            return
        self._leaving = True
        self.write(frames.goaway(self._last, Error.NO_ERROR))
        for stream in list(self.streams.values()):
            stream.leave()
        self._close_if_left()

    def end(self, code: Error, why: str) -> None:
        """Say why, and close, so that the peer can read it although it may still be sending."""
        if self._ended:
            return
        self._ended = True
        transport = self._transport
        for stream in list(self.streams.values()):
            self._drop(stream, cut=False)
        self.idle_since = math.inf
        self.write(frames.goaway(self._last, code, why))
        if transport.can_write_eof():
            transport.write_eof()
            self._gone_by = self.server.loop.time() + _LINGER
        else:
            transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._ended = True
        self._transport.abort()

    def _close_if_left(self) -> None:
        if self._leaving and not self.streams and not self._ended:
            self._ended = True
            self._transport.close()

    # ---- what comes

    def get_buffer(self, _: int) -> memoryview:
        rest = self._rest
        self.server.buffer[: len(rest)] = rest
        return self.server.view[len(rest) :]

    def buffer_updated(self, count: int) -> None:
        if self._ended:
            return
        self._heard = True
        end, at = len(self._rest) + count, 0
        self._rest = b""
        try:
            if not self._greeted:
                start = bytes(self.server.view[: min(end, len(PREFACE))])
                if not PREFACE.startswith(start):
                    raise ConnectionProblem(Error.PROTOCOL_ERROR, "this is not HTTP/2")
                if len(start) < len(PREFACE):
                    self._rest = start
                    return
                self._greeted, at = True, len(PREFACE)
            stop = self._read(at, end)
        except ConnectionProblem as problem:
            self.end(problem.code, str(problem))
            return
        if self._settled:
            if stop == end:
                self._frame_by = math.inf
            elif stop > at or self._frame_by == math.inf:
                self._frame_by = self.server.soon()
        if stop < end:
            self._rest = bytes(self.server.view[stop:end])

    def _read(self, at: int, end: int) -> int:
        """Take the frames that stand in the server's buffer, and return where the first begins that is not whole."""
        data, view = self.server.buffer, self.server.view
        unpack, others = HEAD.unpack_from, _OTHERS
        while end - at >= HEAD_BYTES and not self._ended:
            upper, lower, kind, flags, id = unpack(data, at)
            length = upper << 8 | lower
            if length > MAX_FRAME:
                raise ConnectionProblem(Error.FRAME_SIZE_ERROR, f"a frame has {length} bytes: at most {MAX_FRAME} are allowed")
            start = at + HEAD_BYTES
            stop = start + length
            if stop > end:
                break
            id &= _ID
            if not self._settled and kind != frames.SETTINGS:
                raise ConnectionProblem(Error.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            if self._block is not None and (kind != frames.CONTINUATION or id != self._block_of[0]):
                raise ConnectionProblem(Error.PROTOCOL_ERROR, "a header block is not finished")
            try:
                if kind == DATA:
                    self._data(flags, id, view[start:stop])
                elif kind in others:
                    others[kind](self, flags, id, bytes(view[start:stop]))
                else:
                    self.burden()
            except StreamProblem as problem:
                self.burden(_RESET_COSTS)
                self.reset(id, problem.code)
            at = stop
        return end if self._ended else at

    def _data(self, flags: int, id: int, data: memoryview) -> None:
        size = len(data)
        self._given -= size
        if self._given < _WINDOW // 2:
            if self._given < 0:
                raise ConnectionProblem(Error.FLOW_CONTROL_ERROR, "more came than the connection's window")
            self.write(frames.window_update(0, _WINDOW - self._given))
            self._given = _WINDOW
        if flags & PADDED:
            data = _unpadded(data)
        stream = self.streams.get(id)
        if stream is None:
            self._stray(id, flags & END_STREAM)
            return
        if not stream.hears:
            raise StreamProblem(Error.STREAM_CLOSED)
        stream.given -= size
        if stream.given < 0:
            raise StreamProblem(Error.FLOW_CONTROL_ERROR)
        if flags & PADDED:
            stream.consume(size - len(data))
        if len(data) < _SMALL:
            self.burden()
        if stream.promised is not None:
            stream.promised -= len(data)
            if stream.promised < 0:
                raise StreamProblem(Error.PROTOCOL_ERROR)
        if data:
            stream.received(data)
        if flags & END_STREAM:
            self._end_of(stream)

    def _end_of(self, stream: Stream) -> None:
        stream.hears = False
        if stream.over:
            self._gone[stream.id] = False
        elif stream.promised:
            raise StreamProblem(Error.PROTOCOL_ERROR)
        else:
            stream.ended()

    def _stray(self, id: int, last: int) -> None:
        """Data of a stream that is not open."""
        self.burden()
        if self._gone.get(id):
            self._gone[id] = not last
        elif self._is_idle(id):
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "data came of a stream that was never opened")
        else:
            raise StreamProblem(Error.STREAM_CLOSED)

    def _is_idle(self, id: int) -> bool:
        return id > self._last or id % 2 == 0

    def _headers(self, flags: int, id: int, payload: bytes) -> None:
        if id % 2 == 0:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "streams of clients have odd numbers")
        if flags & PADDED:
            payload = bytes(_unpadded(memoryview(payload)))
        parent = 0
        if flags & WITH_PRIORITY:
            if len(payload) < _PRIORITY_BYTES:
                raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a HEADERS frame is too short")
            parent = NUMBER.unpack_from(payload)[0] & _ID
            payload = payload[_PRIORITY_BYTES:]
        self._block_of = (id, flags, parent)
        if flags & END_HEADERS:
            self._whole(payload)
        else:
            self._block, self._continuations, self._block_by = bytearray(payload), 0, self.server.soon()

    def _continuation(self, flags: int, _: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "CONTINUATION of no header block")
        block += payload
        self._continuations += 1
        if len(block) > MAX_LIST or self._continuations > _CONTINUATIONS:
            raise ConnectionProblem(Error.ENHANCE_YOUR_CALM, f"a header block has more than {MAX_LIST} bytes, or too many frames")
        if flags & END_HEADERS:
            self._block, self._block_by = None, math.inf
            self._whole(bytes(block))

    def _whole(self, block: bytes) -> None:
        id, flags, parent = self._block_of
        fields = self._unpacker.unpack(block)  # whatever the stream is: later blocks build on it
        stream = self.streams.get(id)
        if stream is not None:
            if not stream.hears:
                raise StreamProblem(Error.STREAM_CLOSED)
            check_trailers(fields)
            if not flags & END_STREAM:
                raise StreamProblem(Error.PROTOCOL_ERROR)
            self._end_of(stream)
        elif id > self._last:
            self._last = id
            self._open(id, fields, parent, end=bool(flags & END_STREAM))
        elif self._gone.get(id):
            self._gone[id] = not flags & END_STREAM
        elif id in self._gone:
            raise ConnectionProblem(Error.STREAM_CLOSED, "HEADERS came of a stream that has ended")
        else:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "the number of a stream is lower than that of the one before")

    def _open(self, id: int, fields: list[Field], parent: int, *, end: bool) -> None:
        if self._leaving or len(self.streams) >= self.server.bounds.calls:
            raise StreamProblem(Error.REFUSED_STREAM)
        if parent == id:
            raise StreamProblem(Error.PROTOCOL_ERROR)
        head, timeout = self._unpacker.request(fields)
        stream = self.streams[id] = self.server.stream(self, id)
        self.server.calls += 1
        self.idle_since = math.inf
        if (length := head.get(b"content-length")) is not None:
            if not length.isdigit() or len(length) > 18:
                raise StreamProblem(Error.PROTOCOL_ERROR)
            stream.promised = int(length)
        stream.hears = not end
        stream.opened(head, timeout)
        if end and not stream.over:
            self._end_of(stream)

    def _priority(self, _: int, id: int, payload: bytes) -> None:
        self.burden()
        if id == 0:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "PRIORITY of the connection")
        if len(payload) != _PRIORITY_BYTES:
            raise StreamProblem(Error.FRAME_SIZE_ERROR)
        if NUMBER.unpack_from(payload)[0] & _ID == id:
            raise StreamProblem(Error.PROTOCOL_ERROR)

    def _reset_came(self, _: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a RST_STREAM frame has not 4 bytes")
        if self._is_idle(id):
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "RST_STREAM of a stream that was never opened")
        self.burden(_RESET_COSTS)
        if stream := self.streams.get(id):
            self._drop(stream, cut=False)
        elif id in self._gone:
            self._gone[id] = False

    def _settings(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % frames.SETTING.size or (flags & ACK and payload):
            raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a SETTINGS frame has a wrong length")
        self.burden(1 + len(payload) // 60)
        if flags & ACK:
            return
        for setting, value in frames.SETTING.iter_unpack(payload):
            if setting == frames.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionProblem(Error.FLOW_CONTROL_ERROR, "an initial window is too large")
                for stream in self.streams.values():
                    stream.window += value - self.first_window
                    if stream.window > MAX_WINDOW:
                        raise ConnectionProblem(Error.FLOW_CONTROL_ERROR, "a window is too large")
                self.first_window = value
            elif setting == frames.MAX_FRAME_SIZE:
                if not MAX_FRAME <= value < 2**24:
                    raise ConnectionProblem(Error.PROTOCOL_ERROR, "a frame size is out of range")
                self.max_frame = min(value, 4 * MAX_FRAME)
            elif setting == frames.ENABLE_PUSH and value > 1:
                raise ConnectionProblem(Error.PROTOCOL_ERROR, "ENABLE_PUSH is neither 0 nor 1")
        if not self._settled:
            self._settled, self._frame_by = True, math.inf
        self.write(frame(frames.SETTINGS, ACK, 0))
        self._pump()

    def _push_promise(self, *_: object) -> None:
        raise ConnectionProblem(Error.PROTOCOL_ERROR, "a client promises no stream")

    def _ping(self, flags: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a PING frame has not 8 bytes")
        self.burden()
        if not flags & ACK:
            self.write(frame(frames.PING, ACK, 0, payload))

    def _goaway(self, _: int, id: int, payload: bytes) -> None:
        if id:
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "GOAWAY of a stream")
        if len(payload) < 8:
            raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a GOAWAY frame is too short")
        self._leaving = True
        self._close_if_left()

    def _window_update(self, _: int, id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionProblem(Error.FRAME_SIZE_ERROR, "a WINDOW_UPDATE frame has not 4 bytes")
        self.burden()
        size = NUMBER.unpack(payload)[0] & _ID
        if id == 0:
            if size == 0:
                raise ConnectionProblem(Error.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.window += size
            if self.window > MAX_WINDOW:
                raise ConnectionProblem(Error.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self._pump()
        elif stream := self.streams.get(id):
            stream.window += size
            if size == 0:
                raise StreamProblem(Error.PROTOCOL_ERROR)
            if stream.window > MAX_WINDOW:
                raise StreamProblem(Error.FLOW_CONTROL_ERROR)
            if id in self.blocked:
                stream.pump()
        elif self._is_idle(id):
            raise ConnectionProblem(Error.PROTOCOL_ERROR, "WINDOW_UPDATE of a stream that was never opened")

    # ---- streams

    def burden(self, count: int = 1) -> None:
        """Count frames that ask for nothing. Raises ConnectionProblem where there are too many of them for what else came."""
        self._debt += count
        if self._debt > _MOST_DEBT:
            raise ConnectionProblem(Error.ENHANCE_YOUR_CALM, "too many frames that bring nothing")

    def useful(self) -> None:
        """A message was answered well."""
        if self._debt:
            self._debt = max(0, self._debt - _PAID_BY_MESSAGE)

    def reset(self, id: int, code: Error) -> None:
        """End a stream, whatever its peer is about to do."""
        self.write(frames.reset(id, code))
        if stream := self.streams.get(id):
            self._drop(stream, cut=True)
        elif id not in self._gone:
            self._forget(id, cut=True)

    def close(self, stream: Stream) -> None:
        """All was sent on it."""
        if stream.hears:
            self.write(frames.reset(stream.id, Error.NO_ERROR))  # RFC 9113, 8.1: what it still has to send is not wanted
        self._drop(stream, cut=stream.hears)

    def _drop(self, stream: Stream, *, cut: bool) -> None:
        del self.streams[stream.id]
        self.blocked.pop(stream.id, None)
        self.server.calls -= 1
        self._forget(stream.id, cut=cut)
        stream.over = True
        stream.lost()
        if not self.streams:
            self.idle_since = self.server.now
            self._close_if_left()

    def _forget(self, id: int, *, cut: bool) -> None:
        self._gone[id] = cut
        if len(self._gone) > _REMEMBERED:
            del self._gone[next(iter(self._gone))]

    def _pump(self) -> None:
        for stream in list(self.blocked.values()):
            with suppress(KeyError):  # it ended by what another one did
                if stream.id in self.blocked:
                    stream.pump()


def _unpadded(data: memoryview) -> memoryview:
    if not data or data[0] >= len(data):
        raise ConnectionProblem(Error.PROTOCOL_ERROR, "a frame has more padding than bytes")
    return data[1 : len(data) - data[0]]


_OTHERS: dict[int, Callable[[Connection, int, int, bytes], None]] = {
    frames.HEADERS: Connection._headers,
    frames.PRIORITY: Connection._priority,
    frames.RST_STREAM: Connection._reset_came,
    frames.SETTINGS: Connection._settings,
    frames.PUSH_PROMISE: Connection._push_promise,
    frames.PING: Connection._ping,
    frames.GOAWAY: Connection._goaway,
    frames.WINDOW_UPDATE: Connection._window_update,
    frames.CONTINUATION: Connection._continuation,
}
