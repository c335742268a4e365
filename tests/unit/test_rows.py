"""Arrow rows of the lake."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace import event
from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent, Receipt
from headrace.messages import Message
from loaders.batch.rows import DEAD_LETTERS, EVENTS, dead_letter_rows, event_rows, loaded, sorted_out
from tests.unit.test_batch import Fake

NOW = datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)
ARCHITECTURE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
MOMENTS = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda of: st.lists(of) | st.dictionaries(TEXT, of), max_leaves=5)
EVENT = st.builds(
    EnrichedEvent,
    id=TEXT,
    source=TEXT,
    type=TEXT,
    time=MOMENTS.map(event.rfc3339),
    received_at=MOMENTS.map(event.rfc3339),
    enriched_at=MOMENTS.map(event.rfc3339),
    dataschema=TEXT,
    data=JSON.map(json.dumps).map(lambda text: msgspec.Raw(text.encode())),
    enrichment=st.just(msgspec.Raw(b"{}")),
    subject=st.none() | TEXT,
    receipt=st.builds(Receipt, collector_id=TEXT, protocol=TEXT, key_id=st.none() | TEXT, client=st.none() | TEXT, user_agent=st.none()),
)


def numbered(values: list[Any]) -> list[tuple[Message, Any]]:
    return [(Fake(("events.enriched", 1), n), value) for n, value in enumerate(values)]


def documented(table: str) -> list[str]:
    """The columns that docs/architecture.md gives a table."""
    after = ARCHITECTURE.split(f"`lake.bronze.{table}`, as landed")[1]
    columns = after.split("\n`", 1)[1].split("`")[0]
    return [column.strip() for column in re.sub(r"\([^)]*\)", "", columns).split(",")]


def test_the_columns_are_those_that_are_documented() -> None:
    assert EVENTS.names == documented("events")
    assert DEAD_LETTERS.names == documented("dead_letters")


@given(st.lists(EVENT, max_size=5))
def test_each_event_is_a_row_with_its_own_values(events: list[EnrichedEvent]) -> None:
    batch, rejected = sorted_out(event_rows, numbered(events))
    assert rejected == []
    assert batch.schema == EVENTS
    found = loaded(pa.Table.from_batches([batch]), NOW).to_pylist()
    assert len(found) == len(events)
    for n, (row, of) in enumerate(zip(found, events, strict=True)):
        assert (row["id"], row["source"], row["type"], row["subject"], row["dataschema"]) == (
            of.id,
            of.source,
            of.type,
            of.subject,
            of.dataschema,
        )
        assert (row["data"].encode(), row["enrichment"].encode()) == (bytes(of.data), bytes(of.enrichment))
        assert [row[name].isoformat() for name in ("time", "received_at", "enriched_at")] == [
            datetime.fromisoformat(text).isoformat() for text in (of.time, of.received_at, of.enriched_at)
        ]
        assert (row["collector_id"], row["protocol"], row["key_id"], row["client"]) == (
            of.receipt.collector_id,
            of.receipt.protocol,
            of.receipt.key_id,
            of.receipt.client,
        )
        assert (row["kafka_topic"], row["kafka_partition"], row["kafka_offset"], row["loaded_at"]) == ("events.enriched", 1, n, NOW)


@given(st.lists(st.tuples(EVENT, st.booleans()), max_size=6))
def test_an_event_that_can_be_no_row_is_refused_alone(events: list[tuple[EnrichedEvent, bool]]) -> None:
    for of, bad in events:
        if bad:
            of.time = "tomorrow"
    table, rejected = sorted_out(event_rows, numbered([of for of, _ in events]))
    assert [row["kafka_offset"] for row in table.to_pylist()] == [n for n, (_, bad) in enumerate(events) if not bad]
    assert [refusal.message.offset() for refusal in rejected] == [n for n, (_, bad) in enumerate(events) if bad]
    assert {refusal.reason for refusal in rejected} <= {Reason.ROW_REJECTED}


def test_data_that_is_no_utf_8_is_refused_alone() -> None:
    values: dict[str, Any] = {"id": "1", "source": "s", "type": "t", "dataschema": "t/1-0-0"}
    values |= dict.fromkeys(("time", "received_at", "enriched_at"), "2026-01-01T00:00:00Z")
    receipt = Receipt(collector_id="c", protocol="p")
    events = [EnrichedEvent(**values, receipt=receipt, data=msgspec.Raw(data)) for data in (b'"\xff"', b"{}")]
    table, rejected = sorted_out(event_rows, numbered(events))
    assert (table["data"].to_pylist(), [refusal.message.offset() for refusal in rejected]) == (["{}"], [0])


def test_a_dead_letter_is_a_row() -> None:
    letter = DeadLetter(
        dead_letter_id="d",
        service="enricher",
        reason=Reason.SCHEMA_INVALID,
        detail="w",
        rejected_at="2026-01-31T00:00:00.001Z",
        payload="{}",
        time="yesterday",
        origin_topic="events.raw",
        origin_partition=2,
        origin_offset=2**40,
    )
    bare = DeadLetter(dead_letter_id="e", service="s", reason=Reason.POISON, detail="", rejected_at="2026-01-31T00:00:00Z", payload="")
    table = dead_letter_rows(numbered([bare, letter]))
    assert table.schema == DEAD_LETTERS
    row = table.to_pylist()[1]
    assert row["rejected_at"] == datetime(2026, 1, 31, tzinfo=UTC) + timedelta(milliseconds=1)
    assert (row["reason"], row["time"], row["received_at"], row["id"]) == ("schema_invalid", "yesterday", None, None)
    assert (row["origin_topic"], row["origin_partition"], row["origin_offset"]) == ("events.raw", 2, 2**40)
    assert dead_letter_rows([]).num_rows == 0
