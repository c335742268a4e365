"""HTTP/2 fed byte by byte, in pieces of every size, and with bytes that nobody would send."""

import zlib

import pytest
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.http2 import frames
from collector.http2.frames import ConnectionProblem, frame
from collector.http2.headers import MAX_LIST, Unpacker, packed
from tests.http2_peer import Wire, fields, message, split


def conversation() -> bytes:
    """A call; another, compressed, padded and with its header block in three frames; and a stream of messages."""
    encoder = Encoder()
    block = encoder.encode(fields("/t/Echo", ("grpc-encoding", "gzip"), ("grpc-timeout", "5S")))
    packed_ = message(zlib.compress(b"y" * 500, wbits=31), 1)
    return b"".join(
        [
            frames.PREFACE + frames.settings({frames.INITIAL_WINDOW_SIZE: 50_000}) + frame(frames.PING, 0, 0, b"12345678"),
            frame(frames.HEADERS, 0, 1, block[:5]) + frame(frames.CONTINUATION, 0, 1, block[5:9]),
            frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:]),
            frame(frames.DATA, frames.PADDED, 1, b"\x03" + packed_[:20] + bytes(3)) + frame(frames.DATA, 1, 1, packed_[20:]),
            frame(frames.HEADERS, frames.END_HEADERS, 3, encoder.encode(fields("/t/Stream", ("grpc-timeout", "9999999u")))),
            split(message(b"") + message(b"a" * 20_000) + message(b"b") * 20, 3, end=False) + frame(99, 255, 3, b"what?"),
            frame(frames.HEADERS, frames.END_HEADERS | frames.WITH_PRIORITY, 5, bytes(5) + encoder.encode(fields("/t/Echo"))),
            split(message(b"z"), 5, end=True),
            frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 3, encoder.encode([("x-checksum", "1")])),
        ]
    )


def spoken(wire: Wire) -> dict[int, tuple[bytes, list[tuple[str, str]]]]:
    """The data and the fields of each stream."""
    decoder, found, rest = Decoder(), dict[int, tuple[bytes, list[tuple[str, str]]]](), wire.sent
    while rest:
        size, kind, stream = 9 + int.from_bytes(rest[:3]), rest[3], int.from_bytes(rest[5:9])
        payload, rest = rest[9:size], rest[size:]
        data, said = found.get(stream, (b"", []))
        if kind == frames.DATA:
            found[stream] = data + payload, said
        elif kind == frames.HEADERS:
            found[stream] = data, [*said, *((str(name), str(value)) for name, value in decoder.decode(payload))]
        elif stream:
            assert kind == frames.WINDOW_UPDATE
    return found


CONVERSATION = conversation()


def whole() -> dict[int, tuple[bytes, list[tuple[str, str]]]]:
    wire = Wire()
    wire.feed(CONVERSATION)
    return spoken(wire)


def test_a_conversation() -> None:
    found = whole()
    assert found[1][0] == message(b"y" * 500)
    assert found[3][0] == message(b"") + message(b"a" * 20_000) + message(b"b") * 20
    assert found[5][0] == message(b"z")
    assert all(said[-1] == ("grpc-status", "0") for _, said in found.values())


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=40).map(sorted))
@settings(deadline=None, max_examples=200)
def test_cut_anywhere_it_says_the_same(cuts: list[int]) -> None:
    wire, at = Wire(), 0
    for cut in [*cuts, len(CONVERSATION)]:
        wire.feed(CONVERSATION[at:cut])
        at = cut
    assert spoken(wire) == whole()
    assert (wire.server.admission.bytes, wire.server.calls) == (0, 0)


def test_byte_by_byte_it_says_the_same() -> None:
    wire = Wire()
    for place in range(len(CONVERSATION)):
        wire.feed(CONVERSATION[place : place + 1])
    assert spoken(wire) == whole()


FRAMES = st.builds(
    frame, st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 1, 2, 3, 5]), st.binary(max_size=60) | st.just(message(b"x"))
)


@given(st.lists(FRAMES | st.binary(max_size=20), max_size=20), st.booleans())
@settings(deadline=None, max_examples=300)
def test_no_bytes_break_it(pieces: list[bytes], open_: bool) -> None:
    """Nothing is raised, and what was held is given back once the connection is gone."""
    wire = Wire()
    wire.feed(frames.PREFACE + frames.settings({}))
    if open_:
        wire.feed(frame(frames.HEADERS, frames.END_HEADERS, 1, Encoder().encode(fields("/t/Stream"))))
    for piece in pieces:
        wire.feed(piece)
    if not wire.closed:
        wire.close()
    assert (wire.server.admission.bytes, wire.server.calls, wire.connection.streams) == (0, 0, {})


# ---- fields

NAMES = st.sampled_from([":path", "te", "x-a", "grpc-timeout", "authorization", "x-" + "b" * 200])
FIELDS = st.lists(st.tuples(NAMES, st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)), max_size=8)


@given(st.lists(st.tuples(FIELDS, st.booleans(), st.sampled_from([None, 0, 100, 4096])), max_size=12))
@settings(deadline=None)
def test_our_reading_of_blocks_is_the_librarys(blocks: list[tuple[list[tuple[str, str]], bool, int | None]]) -> None:
    encoder, ours, theirs = Encoder(), Unpacker(), Decoder(MAX_LIST)
    for of, huffman, size in blocks:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(of, huffman=huffman)
        assert ours.unpack(block) == list(theirs.decode(block, raw=True))
        assert list(ours._table.dynamic_entries) == list(theirs.header_table.dynamic_entries)


@given(st.binary(max_size=60))
def test_no_block_breaks_it(block: bytes) -> None:
    try:
        ours: object = Unpacker().unpack(block)
    except ConnectionProblem:
        ours = None
    try:
        theirs: object = list(Decoder(MAX_LIST).decode(block, raw=True))
    except Exception:
        theirs = None
    assert ours == theirs


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 300, 20_000])
def test_a_block_of_ours_is_read_by_the_library(size: int) -> None:
    of = [("x-long", "v" * size), ("grpc-status", "0")]
    assert [(str(name), str(value)) for name, value in Decoder().decode(packed(of))] == of
