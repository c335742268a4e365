"""Decompression with a bound: a bomb costs no more memory than the limit. Pure."""

import zlib

ENCODINGS = ("identity", "gzip", "deflate")
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Unsupported(Exception):
    """The content encoding is none that we know."""


class TooLong(Exception):
    """There is more behind the compression than the limit."""


class Corrupt(Exception):
    """The bytes are not what the content encoding says."""


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """`body` without its content encoding, at most `limit` bytes. Raises Unsupported, TooLong or Corrupt."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW:
        raise Unsupported(f"content encoding {name[:50]!r} is not supported: use {', '.join(ENCODINGS)}")
    if name == "deflate" and body[:1] and body[0] & 0x0F != 8:
        return _inflate(body, -15, limit)  # without the zlib header, as some clients send it
    return _inflate(body, _WINDOW[name], limit)


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    room, rest = limit, body
    while rest:  # gzip allows several members one after the other
        member = zlib.decompressobj(window)
        try:
            part = member.decompress(rest, room + 1)
        except zlib.error as error:
            raise Corrupt(f"the body is not compressed as its content encoding says: {error}") from None
        room -= len(part)
        if room < 0:
            raise TooLong(f"the body has more than {limit} bytes when decompressed")
        if not member.eof:
            raise Corrupt("the compressed body is cut off")
        parts.append(part)
        rest = member.unused_data
        if window != _WINDOW["gzip"] and rest:
            raise Corrupt("there is something after the end of the compressed body")
    return b"".join(parts)
