"""A refused message as a dead letter."""

from hypothesis import given
from hypothesis import strategies as st

from headrace import dead_letter, event
from headrace.dead_letter import Reason
from headrace.messages import MAX_VALUE_BYTES, Rejected, letter_in, letter_of
from tests.unit.test_batch import Fake


def refused(body: bytes) -> Rejected:
    return Rejected(Fake(("events.raw", 2), 7, body), Reason.SCHEMA_INVALID, "why")


@given(st.binary(max_size=300) | st.text().map(str.encode))
def test_a_letter_holds_the_bytes_and_where_they_were(body: bytes) -> None:
    letter = dead_letter.decode(dead_letter.encode(letter_of("enricher", refused(body))))
    assert letter.payload_bytes() == body
    assert (letter.origin_topic, letter.origin_partition, letter.origin_offset) == ("events.raw", 2, 7)
    assert (letter.service, letter.reason, letter.detail) == ("enricher", Reason.SCHEMA_INVALID, "why")
    assert event.is_utc(letter.rejected_at)


def test_the_same_refusal_has_the_same_id_and_each_service_its_own() -> None:
    ids = [letter_of(service, refused(body)).dead_letter_id for service, body in (("a", b"1"), ("a", b"1"), ("b", b"1"))]
    assert ids[0] == ids[1] != ids[2]


def test_attributes_are_kept_as_far_as_they_are_text() -> None:
    body = (
        b'{"id": "i", "source": "s", "type": 5, "subject": null, "time": "soon", "received_at": "2026-01-01T00:00:00Z",'
        b' "data": {"deep": [1]}, "receipt": {"key_id": "k"}}'
    )
    letter = letter_of("enricher", refused(body))
    assert (letter.id, letter.source, letter.type, letter.subject, letter.time) == ("i", "s", None, None, "soon")
    assert (letter.received_at, letter.key_id) == ("2026-01-01T00:00:00Z", "k")
    assert letter_of("enricher", refused(b'{"id": "i", "received_at": "soon", "receipt": 5}')).received_at is None


@given(
    st.sampled_from([b'"', b"\\", b"x", b"\x00", b"\xff", "ä".encode(), b"\x1f"]), st.integers(MAX_VALUE_BYTES // 2, MAX_VALUE_BYTES * 2)
)
def test_a_letter_always_fits_into_kafka_and_says_where_the_whole_is(of: bytes, size: int) -> None:
    body = of * (size // len(of))
    letter = letter_of("enricher", refused(body))
    assert len(dead_letter.encode(letter)) <= MAX_VALUE_BYTES
    if letter.payload_bytes() != body:
        assert body.startswith(letter.payload_bytes())
        assert letter.detail == f"why (payload cut: all {len(body)} bytes are at events.raw partition 2 offset 7)"


def test_an_attribute_that_is_a_book_is_left_to_the_payload() -> None:
    body = b'{"id": "%b", "source": "s"}' % (b"x" * (MAX_VALUE_BYTES - 100))
    letter = letter_of("enricher", refused(body))
    assert (letter.id, letter.source) == (None, "s")
    assert len(dead_letter.encode(letter)) <= MAX_VALUE_BYTES


@given(st.binary(max_size=200) | st.just(dead_letter.encode(letter_of("a", refused(b"x")))))
def test_every_message_of_a_dead_letter_topic_has_a_letter(body: bytes) -> None:
    letter = letter_in("loader", Fake(("dead-letter.collector", 0), 1, body))
    assert event.is_utc(letter.rejected_at)
    assert letter.received_at is None or event.is_utc(letter.received_at)


def test_moments_that_are_none_are_mended() -> None:
    odd = letter_of("a", refused(b"x"))
    odd.rejected_at, odd.received_at = "yesterday", "2026-13-01T00:00:00Z"
    letter = letter_in("loader", Fake(("dead-letter.collector", 0), 1, dead_letter.encode(odd)))
    assert event.is_utc(letter.rejected_at)
    assert (letter.received_at, letter.dead_letter_id) == (None, odd.dead_letter_id)


def test_a_dead_letter_that_is_poison_leaves_nothing_of_itself_in_its_own() -> None:
    body = b'{"id": "deadly", "payload": "deadly"}'
    letter = letter_of("realtime-loader", Rejected(Fake(("dead-letter.loader", 0), 7, body), Reason.POISON, "why"))
    assert b"deadly" not in dead_letter.encode(letter)
    assert "dead-letter.loader partition 0 offset 7" in letter.detail
    assert letter_of("realtime-loader", Rejected(Fake(("events.enriched", 0), 7, body), Reason.POISON, "why")).payload_bytes() == body
