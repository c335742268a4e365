"""Decompression with a bound: a bomb costs no more memory than the limit. Pure."""

import zlib

import brotli
import zstandard

ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")
_WINDOW = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # as zlib counts them: 31 is a gzip header, 15 zlib's
_ZSTD_WINDOW = 8 * 1024 * 1024  # bytes: what a decoder must support (RFC 8878, 3.1.1.1.2), and no more

_MAX_PARTS = 1000  # gzip members or zstd frames one after the other; each has a price, and an empty one has 20 bytes or less


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
        if len(body) > limit:
            raise _too_long(limit)
        return body
    if name == "br":
        return _brotli(body, limit)
    if name == "zstd":
        return _zstd(body, limit)
    if name not in _WINDOW:
        raise Unsupported(f"content encoding {name[:50]!r} is not supported: use {', '.join(ENCODINGS)}")
    if name == "deflate" and body[:1] and body[0] & 0x0F != 8:
        return _zlib(body, -15, limit)  # without the zlib header, as some clients send it
    return _zlib(body, _WINDOW[name], limit)


def _zlib(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    room, rest = limit, body
    while rest:  # gzip allows several members one after the other
        if len(parts) == _MAX_PARTS:
            raise _too_many_parts()
        member = zlib.decompressobj(window)
        try:
            part = member.decompress(rest, room + 1)
        except zlib.error as error:
            raise _not_compressed(error) from None
        room -= len(part)
        if room < 0:
            raise _too_long(limit)
        if not member.eof:
            raise Corrupt("the compressed body is cut off")
        parts.append(part)
        rest = member.unused_data
        if window != _WINDOW["gzip"] and rest:
            raise Corrupt("there is something after the end of the compressed body")
    return b"".join(parts)


def _brotli(body: bytes, limit: int) -> bytes:
    stream = brotli.Decompressor()
    try:
        plain: bytes = stream.process(body, output_buffer_limit=limit + 1)
        while not stream.is_finished() and len(plain) <= limit:
            if stream.can_accept_more_data():
                raise Corrupt("the compressed body is cut off")
            plain += stream.process(b"", output_buffer_limit=limit + 1)
    except brotli.error as error:
        raise _not_compressed(error) from None
    if len(plain) > limit:
        raise _too_long(limit)
    return plain


def _zstd(body: bytes, limit: int) -> bytes:
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    parts: list[bytes] = []
    rest = body
    try:
        if len(decoder.stream_reader(body, read_across_frames=True).read(limit + 1)) > limit:
            raise _too_long(limit)
        while rest or not parts:  # now that the size is known, once more, since a reader does not tell where the body is cut off
            if len(parts) == _MAX_PARTS:
                raise _too_many_parts()
            frame = decoder.decompressobj()
            parts.append(frame.decompress(rest))
            if not frame.eof:
                raise Corrupt("the compressed body is cut off")
            rest = frame.unused_data
    except zstandard.ZstdError as error:
        raise _not_compressed(error) from None
    return b"".join(parts)


def _too_many_parts() -> Corrupt:
    return Corrupt(f"the body has more than {_MAX_PARTS} compressed parts: compress it as one")


def _too_long(limit: int) -> TooLong:
    return TooLong(f"the body has more than {limit} bytes, without compression")


def _not_compressed(error: Exception) -> Corrupt:
    return Corrupt(f"the body is not compressed as its content encoding says: {error}")
