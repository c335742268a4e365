"""The event in Kafka: what goes in comes out, byte for byte where it is raw."""

import json
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace import event
from headrace.event import EnrichedEvent, RawEvent, Receipt

TEXT = st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8
)
RAW = JSON.map(lambda value: msgspec.Raw(json.dumps(value).encode()))
RECEIPTS = st.builds(
    Receipt, collector_id=TEXT, protocol=TEXT, key_id=st.none() | TEXT, client=st.none() | TEXT, user_agent=st.none() | TEXT
)
ATTRIBUTES = dict.fromkeys(("id", "source", "type", "time", "received_at", "dataschema"), TEXT)
RAW_EVENTS = st.builds(RawEvent, **ATTRIBUTES, data=RAW, receipt=RECEIPTS, subject=st.none() | TEXT)
ENRICHED_EVENTS = st.builds(
    EnrichedEvent, **ATTRIBUTES, data=RAW, receipt=RECEIPTS, subject=st.none() | TEXT, enriched_at=TEXT, enrichment=RAW
)


@given(RAW_EVENTS)
def test_raw_events_come_back(sent: RawEvent) -> None:
    assert event.decode_raw(event.encode(sent)) == sent


@given(ENRICHED_EVENTS)
def test_enriched_events_come_back(sent: EnrichedEvent) -> None:
    assert event.decode_enriched(event.encode(sent)) == sent


@pytest.mark.parametrize("data", [b'{"b":1,  "a":1.50}', b'{"n":12345678901234567890123}', b'{"t":"\\u00e9"}', b'{"a":1,"a":2}', b"null"])
def test_data_keeps_its_bytes(data: bytes) -> None:
    sent = RawEvent(
        id="1",
        source="s",
        type="t",
        time="",
        received_at="",
        dataschema="",
        data=msgspec.Raw(data),
        receipt=Receipt(collector_id="c", protocol="p"),
    )
    assert bytes(event.decode_raw(event.encode(sent)).data) == data


def test_an_enriched_event_has_an_empty_enrichment_at_least() -> None:
    receipt = Receipt(collector_id="c", protocol="p")
    data = msgspec.Raw(b"1")
    sent = RawEvent(id="1", source="s", type="t", time="", received_at="", dataschema="", data=data, receipt=receipt)
    value = event.encode(sent)[:-1] + b',"enriched_at":""}'
    assert bytes(event.decode_enriched(value).enrichment) == b"{}"


@pytest.mark.parametrize(
    "value", [b"", b"{", b"[]", b"{}", b'{"id":1}', b'{"id":"\xff"}', b'{"id":"\\ud800"}', b'{"data":' + b"[" * 100_000]
)
def test_anything_else_is_refused(value: bytes) -> None:
    for decode in (event.decode_raw, event.decode_enriched):
        with pytest.raises(msgspec.DecodeError):
            decode(value)


CLEAN = st.text(st.characters(exclude_characters="\x1f", exclude_categories=["Cs"]))


@given(CLEAN, CLEAN, CLEAN, CLEAN)
def test_an_identity_has_a_key_of_its_own(source: str, id: str, other_source: str, other_id: str) -> None:
    assume((source, id) != (other_source, other_id))
    assert event.identity_key(source, id) != event.identity_key(other_source, other_id)


@given(st.datetimes(timezones=st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-14 * 60, 14 * 60))))
def test_moments_are_written_in_utc(moment: datetime) -> None:
    assume(datetime.min.replace(tzinfo=UTC) + timedelta(days=1) < moment < datetime.max.replace(tzinfo=UTC) - timedelta(days=1))
    text = event.rfc3339(moment)
    assert len(text) == len("2026-01-31T12:00:00.000Z")
    assert event.is_utc(text)
    assert timedelta(0) <= moment - datetime.fromisoformat(text) < timedelta(milliseconds=1)


def test_now_is_a_moment() -> None:
    assert event.is_utc(event.now())


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("2026-01-31T12:00:00Z", True),
        ("2026-01-31T12:00:00.123456Z", True),
        ("2026-01-31T12:00:00.1234567Z", False),
        ("2026-01-31T12:00:00+00:00", False),
        ("2026-01-31 12:00:00Z", False),
        ("2026-02-30T12:00:00Z", False),
        ("yesterday", False),
        ("", False),
    ],
)
def test_is_utc(text: str, verdict: bool) -> None:
    assert event.is_utc(text) == verdict
