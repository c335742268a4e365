"""HTTP/2's frames (RFC 9113, 4 and 6): their numbers, and how they are written. Pure."""

from collections.abc import Mapping
from enum import IntEnum
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = Struct(">HBBBL")  # length (its upper 16 bits, its lower 8), type, flags, stream
HEAD_BYTES = 9
MAX_FRAME = 16_384  # bytes of a payload that is taken: what every peer must take, too (4.2)
MAX_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535  # of a connection, and of streams until a SETTINGS frame says otherwise

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(2, 7)
SETTING = Struct(">HL")
NUMBER = Struct(">L")
_PAIR = Struct(">LL")


class Error(IntEnum):
    """Why a stream or a connection ends (RFC 9113, 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionProblem(Exception):
    """The peer broke a rule in a way that ends the connection."""

    def __init__(self, code: Error, why: str) -> None:
        super().__init__(why)
        self.code = code


class StreamProblem(Exception):
    """The peer broke a rule in a way that ends the stream."""

    def __init__(self, code: Error) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as it is sent."""
    size = len(payload)
    return HEAD.pack(size >> 8, size & 255, kind, flags, stream) + payload


def settings(of: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(*one) for one in of.items()))


def reset(stream: int, code: Error) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, NUMBER.pack(code))


def goaway(last: int, code: Error, why: str = "") -> bytes:
    """A GOAWAY frame; `last` is the highest stream that was or will be served."""
    return frame(GOAWAY, 0, 0, _PAIR.pack(last, code) + why.encode())


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, NUMBER.pack(size))
