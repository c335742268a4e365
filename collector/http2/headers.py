"""The fields of a request, from HPACK (RFC 7541) to what they say, and of an answer to HPACK. Pure, but for the table of a connection.

Fields that a client repeats come as one byte each, or as one value that is new for a name that is known: those are read here, since the
library takes 10 µs for each. All else is the library's.
"""

import re
from collections.abc import Iterable, Mapping

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from collector.http2.frames import ConnectionProblem, Error, StreamProblem

Field = tuple[bytes, bytes]

MAX_LIST = 16_384  # bytes of a request's fields, each with 32 more (RFC 9113, 6.5.2)

_STATIC: tuple[Field, ...] = HeaderTable.STATIC_TABLE
_SIZES = 0x7F  # a length in one byte is less; also the flag of Huffman's code is beyond it
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_BAD = re.compile(rb"[\0\r\n]").search
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_TIMEOUT = b"grpc-timeout"
_NEEDED = (b":method", b":scheme", b":path")
_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class Unpacker:
    """Reads the header blocks of one connection, one after the other."""

    def __init__(self) -> None:
        self._decoder = Decoder(MAX_LIST)
        self._table = self._decoder.header_table
        self._known: tuple[list[Field], Mapping[bytes, bytes]] | None = None

    def unpack(self, block: bytes) -> list[Field]:
        """The fields of `block`. Raises ConnectionProblem: without what it says, no later block can be read."""
        fields: list[Field] = []
        table, statics = self._table, len(_STATIC)
        at, end = 0, len(block)
        try:
            while at < end:
                byte, length = block[at], block[at + 1] & _SIZES if at + 1 < end else _SIZES
                if 0x80 < byte < 0xFF:  # a field of the table
                    index = byte & 0x7F
                    fields.append(_STATIC[index - 1] if index <= statics else table.dynamic_entries[index - statics - 1])
                    at += 1
                elif (
                    0x40 < byte < 0x7F and at + 1 < end and (length := block[at + 1] & _SIZES) < _SIZES
                ):  # a name of the table, a new value
                    index = byte & 0x3F
                    name = (_STATIC[index - 1] if index <= statics else table.dynamic_entries[index - statics - 1])[0]
                    value = block[at + 2 : at + 2 + length]
                    if len(value) < length:
                        raise ConnectionProblem(Error.COMPRESSION_ERROR, "a header block is cut off")
                    if block[at + 1] & 0x80:
                        value = bytes(decode_huffman(value))
                    table.add(name, value)
                    fields.append((name, value))
                    at += 2 + length
                elif fields and byte & 0xE0 == 0x20:
                    raise ConnectionProblem(Error.COMPRESSION_ERROR, "the size of the table changes within a header block")
                else:
                    fields += self._decoder.decode(block[at:], raw=True)
                    break
        except (OversizedHeaderListError, MemoryError):
            raise _too_large() from None
        except (HPACKError, IndexError, ValueError):
            raise ConnectionProblem(Error.COMPRESSION_ERROR, "a header block cannot be read") from None
        if len(fields) * 32 + sum([len(name) + len(value) for name, value in fields]) > MAX_LIST:
            raise _too_large()
        return fields

    def request(self, fields: list[Field]) -> tuple[Mapping[bytes, bytes], bytes | None]:
        """What `checked` says, and apart from it the timeout, the only field that differs between the calls of a connection."""
        timeout = None
        same = [field for field in fields if field[0] != _TIMEOUT]
        if len(same) < len(fields):
            timeout = next(value for name, value in fields if name == _TIMEOUT)
        if self._known is None or same != self._known[0]:
            self._known = same, checked(same)
        return self._known[1], timeout


def _too_large() -> ConnectionProblem:
    return ConnectionProblem(Error.ENHANCE_YOUR_CALM, f"the fields of a request have more than {MAX_LIST} bytes")


def checked(fields: Iterable[Field]) -> dict[bytes, bytes]:
    """The fields of a request by name; values of one name stand with commas between. Raises StreamProblem where it is malformed (8.1.1)."""
    found: dict[bytes, bytes] = {}
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name not in _PSEUDO or name in found:
                raise StreamProblem(Error.PROTOCOL_ERROR)
        else:
            regular = True
            if not _NAME(name) or name in _HOP or (name == b"te" and value != b"trailers"):
                raise StreamProblem(Error.PROTOCOL_ERROR)
        if _BAD(value):
            raise StreamProblem(Error.PROTOCOL_ERROR)
        found[name] = b"%b, %b" % (found[name], value) if name in found else value
    if not all(map(found.get, _NEEDED)):
        raise StreamProblem(Error.PROTOCOL_ERROR)
    return found


def check_trailers(fields: Iterable[Field]) -> None:
    """Raises StreamProblem where the fields after a body are malformed. What they say counts for nothing."""
    if any(not _NAME(name) or name in _HOP or _BAD(value) for name, value in fields):
        raise StreamProblem(Error.PROTOCOL_ERROR)


def packed(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block that leaves the table alone, so that it may be kept and sent on any connection."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    data = text.encode("latin-1")
    size, start = len(data), bytearray()
    if size < _SIZES:
        start.append(size)
    else:
        start.append(_SIZES)
        size -= _SIZES
        while size >= 128:
            start.append(size & 127 | 128)
            size >>= 7
        start.append(size)
    return bytes(start) + data
