"""Keys, receipts, decompression and the description of the collector."""

import base64
import contextlib
import gzip
import hashlib
import os
import tracemalloc
import zlib
from pathlib import Path

import brotli
import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector import openapi, segment
from collector.accept import Limits
from collector.inflate import Corrupt, TooLong, Unsupported, inflate
from collector.rest import _POSTS, Rest
from collector.senders import Senders, write_key_of

SENDERS = Senders({"key-1": "website", "key-2": "app"}, "c1", "secret")


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (basic("key-1:"), "key-1"),
        (basic("key-1:password"), "key-1"),
        (basic("key-1"), "key-1"),
        ("basic  " + basic("key-1:")[6:] + " ", "key-1"),
        ("Bearer key-1", "key-1"),
        ("bearer  key-1 ", "key-1"),
        (basic(":key-1"), None),
        ("Bearer", None),
        ("Basic !!!", None),
        ("Basic /////w==", None),
        ("Digest key-1", None),
        ("", None),
    ],
)
def test_write_key_of_a_header(header: str, key: str | None) -> None:
    assert write_key_of(header) == key


@given(st.text())
def test_any_header_is_answered(header: str) -> None:
    write_key_of(header)
    assert SENDERS.known(header) is None or header.startswith("key-")


def test_keys_are_told_apart() -> None:
    first, second = SENDERS.known("key-1"), SENDERS.known("key-2")
    assert first is not None
    assert second is not None
    assert (first.source, second.source) == ("website", "app")
    assert first.id == hashlib.sha256(b"key-1").hexdigest()[:8]
    assert SENDERS.known("key-3") is SENDERS.known("") is SENDERS.known(None) is None


def test_a_receipt_holds_no_address_and_no_control_characters() -> None:
    key = SENDERS.known("key-1")
    assert key is not None
    receipt = SENDERS.receipt("segment", key, "192.0.2.7", "evil\r\nx\x00" + "a" * 1000)
    assert receipt.client is not None
    assert "192" not in receipt.client
    assert len(receipt.client) == 32
    assert receipt.user_agent == "evilx" + "a" * 295
    assert receipt.client == SENDERS.receipt("grpc", key, "192.0.2.7", None).client
    assert receipt.client != Senders({"key-1": "website"}, "c1", "other secret").receipt("segment", key, "192.0.2.7", None).client


@given(st.binary(max_size=1000))
def test_what_was_compressed_comes_back(body: bytes) -> None:
    raw = zlib.compressobj(wbits=-15)
    for encoding, sent in {
        "gzip": gzip.compress(body),
        "GZIP ": gzip.compress(body[:500]) + gzip.compress(body[500:]),
        "deflate": zlib.compress(body),
        "": body,
        "identity": body,
        "br": brotli.compress(body),
        "zstd": zstandard.compress(body),
        " zstd": zstandard.compress(body[:500]) + zstandard.compress(body[500:]),
        "ZSTD": zstandard.ZstdCompressor(write_content_size=False).compress(body),
    }.items():
        assert inflate(sent, encoding, 1000) == body
    assert inflate(raw.compress(body) + raw.flush(), "deflate", 1000) == body


def test_bombs_and_nonsense() -> None:
    assert inflate(gzip.compress(b"a" * 1000), "gzip", 1000) == b"a" * 1000
    bombs = [gzip.compress(b"a" * 1001), gzip.compress(b"a" * 600) * 2, gzip.compress(bytes(50_000_000))]
    for bomb in bombs:
        with pytest.raises(TooLong):
            inflate(bomb, "gzip", 1000)
    unsized = zstandard.ZstdCompressor(write_content_size=False)
    for encoding, pack in {"br": brotli.compress, "zstd": zstandard.compress, "ZSTD": unsized.compress}.items():
        assert inflate(pack(b"a" * 1000), encoding, 1000) == b"a" * 1000
        assert inflate(pack(b""), encoding, 1000) == b""
        for large in (pack(b"a" * 1001), pack(bytes(50_000_000))):
            tracemalloc.start()
            with pytest.raises(TooLong):
                inflate(large, encoding, 1000)
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
            tracemalloc.stop()
        for bad in (b"nonsense", b"", pack(b"a" * 1000)[:-2], pack(os.urandom(900))[:500], pack(b"a") + b"tail"):
            with pytest.raises(Corrupt):
                inflate(bad, encoding, 1000)
    for bad in (b"nonsense", gzip.compress(b"a" * 1000)[:-5], gzip.compress(b"a") + b"tail"):
        with pytest.raises(Corrupt):
            inflate(bad, "gzip", 1000)
    with pytest.raises(Unsupported):
        inflate(b"", "compress", 1000)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "x-gzip", "br", "zstd"]))
def test_any_compressed_bytes_are_answered(body: bytes, encoding: str) -> None:
    with contextlib.suppress(TooLong, Corrupt):
        assert len(inflate(body, encoding, 100)) <= 100


def test_openapi_names_every_route() -> None:
    document = msgspec.json.decode(openapi.DOCUMENT)
    rest = Rest.__new__(Rest)
    Rest.__init__(rest, None, max_body=1)  # type: ignore[arg-type]
    assert set(document["paths"]) == {*_POSTS, *rest._gets}
    for path in document["paths"]:
        assert path.encode() in openapi.PAGE
    assert b"http://" not in openapi.PAGE
    assert b"https://" not in openapi.PAGE


def test_the_example_limits_are_those_of_the_code() -> None:
    example = (Path(__file__).parents[2] / ".env.example").read_text()
    assert f"COLLECTOR_MAX_EVENT_BYTES={Limits().event_bytes}\n" in example
    assert f"COLLECTOR_MAX_BATCH_EVENTS={Limits().events}\n" in example
    assert f"COLLECTOR_MAX_DEPTH={Limits().depth}\n" in example
    assert segment.CALLS == ("track", "identify", "page", "screen", "group", "alias", "feedback")
