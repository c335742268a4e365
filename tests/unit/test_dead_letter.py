"""Dead letters: the bytes that were refused come back, and a repeated refusal repeats its id."""

import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import dead_letter
from headrace.dead_letter import DeadLetter, Invalid, Reason

OPTIONAL = dict.fromkeys(("id", "source", "type", "subject", "time", "received_at", "key_id", "origin_topic"), st.none() | st.text())
NUMBERS = dict.fromkeys(("origin_partition", "origin_offset"), st.none() | st.integers(0, 2**63 - 1))
PAYLOADS = st.binary() | st.text().map(str.encode) | st.sampled_from([b"", b"\0", b"{}", b"\xef\xbb\xbf{}", b"\xed\xa0\x80"])


@st.composite
def letters(draw: st.DrawFn) -> tuple[bytes, DeadLetter]:
    payload = draw(PAYLOADS)
    text, encoding = dead_letter.text_of(payload)
    required = dict.fromkeys(("dead_letter_id", "service", "detail", "rejected_at"), st.text())
    reasons = st.sampled_from(Reason)
    rest = st.builds(
        DeadLetter, payload=st.just(text), payload_encoding=st.just(encoding), reason=reasons, **required, **OPTIONAL, **NUMBERS
    )
    return payload, draw(rest)


@given(letters())
def test_letters_come_back_with_their_bytes(given: tuple[bytes, DeadLetter]) -> None:
    payload, letter = given
    back = dead_letter.decode(dead_letter.encode(letter))
    assert back == letter
    assert back.payload_bytes() == payload


@given(PAYLOADS)
def test_text_holds_nothing_that_a_store_refuses(payload: bytes) -> None:
    text, encoding = dead_letter.text_of(payload)
    assert "\0" not in text
    assert encoding == ("utf8" if text.encode() == payload else "base64")


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"dead_letter_id":"1"}', b"\xff", b'{"id":' + b"[" * 100_000])
def test_anything_else_is_refused(value: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        dead_letter.decode(value)


def test_an_unknown_reason_is_refused() -> None:
    letter = DeadLetter(dead_letter_id="1", service="s", reason=Reason.POISON, detail="d", rejected_at="r", payload="")
    with pytest.raises(msgspec.ValidationError, match="reason"):
        dead_letter.decode(dead_letter.encode(letter).replace(b"poison", b"whatever"))


def test_ids_at_a_place_are_stable() -> None:
    # Kept for ever: stores know dead letters by it.
    assert dead_letter.id_at("enricher", "events.raw", 2, 41) == "79e5e630-9f34-5d09-9ed8-74a72388ab81"


@given(
    st.lists(
        st.tuples(st.sampled_from(["enricher", "loader"]), st.sampled_from(["events.raw", "a.b"]), st.integers(0), st.integers(0)),
        unique=True,
    )
)
def test_places_have_ids_of_their_own(places: list[tuple[str, str, int, int]]) -> None:
    ids = {dead_letter.id_at(*place) for place in places}
    assert len(ids) == len(places)
    assert ids == {dead_letter.id_at(*place) for place in places}


def test_new_ids_are_new() -> None:
    first, second = dead_letter.new_id(), dead_letter.new_id()
    assert first != second
    assert uuid.UUID(first).version == 4


def test_invalid_says_reason_and_detail() -> None:
    error = Invalid(Reason.TOO_LARGE, "1,000,001 bytes; at most 1,000,000")
    assert str(error) == "too_large: 1,000,001 bytes; at most 1,000,000"
    assert (error.reason, error.detail) == (Reason.TOO_LARGE, "1,000,001 bytes; at most 1,000,000")
