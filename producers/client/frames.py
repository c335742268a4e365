"""How records stand in a spool file: mark, length, CRC32, text. Pure.

The mark begins with a byte that is in no UTF-8 text, so after a damaged record the next one is found again, and only the damaged is lost.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

MARK = b"\xff\xfeHR"
_HEAD = struct.Struct("<4sII")
HEAD_BYTES = _HEAD.size


def frame(text: bytes) -> bytes:
    """The record of `text` (UTF-8). The CRC covers the length too."""
    return _HEAD.pack(MARK, len(text), _crc(text)) + text


def frames(texts: Iterable[bytes]) -> bytes:
    """The records of `texts`, one after the other."""
    return b"".join(map(frame, texts))


def scan(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Every whole record in `data`: its text, and where it ends. What lies between is damaged or torn, and passed over."""
    at = 0
    while at >= 0:
        text = _text_at(data, at)
        if text is None:
            at = data.find(MARK, at + 1)
        else:
            at += HEAD_BYTES + len(text)
            yield text, at


def _text_at(data: bytes, at: int) -> bytes | None:
    if at + HEAD_BYTES > len(data):
        return None
    mark, length, crc = _HEAD.unpack_from(data, at)
    start = at + HEAD_BYTES
    if mark != MARK or start + length > len(data):
        return None
    text = data[start : start + length]
    return text if _crc(text) == crc else None


def _crc(text: bytes) -> int:
    return zlib.crc32(text, zlib.crc32(len(text).to_bytes(4, "little")))
