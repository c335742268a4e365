"""A batch of rows beside a batch of messages: the same messages, whatever is repeated, refused or taken away."""

from dataclasses import dataclass

import msgspec
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace.batch import Batch, Limits
from headrace.dead_letter import DeadLetter, Invalid, Reason
from headrace.event import EnrichedEvent, Receipt
from headrace.messages import Message, Partition, letter_in
from loaders.batch.row_batch import Row, RowBatch, rows_of
from loaders.batch.rows import DEAD_LETTERS, EVENTS

EVENTS_AT: list[Partition] = [("events", 0), ("events", 1)]
LETTERS_AT: Partition = ("letters", 0)
PLACES = [*EVENTS_AT, LETTERS_AT]


@dataclass(frozen=True)
class Fake:
    """A message that is only a value."""

    at: Partition
    number: int
    time: str = "2026-01-31T12:00:00Z"

    def topic(self) -> str:
        return self.at[0]

    def partition(self) -> int:
        return self.at[1]

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self.time.encode()


def parse(message: Message) -> Row:
    time = (message.value() or b"").decode()
    if time == "refused":
        raise Invalid(Reason.UNPARSEABLE, "refused")
    if message.topic() == "letters":
        return letter_in("test", message)
    return EnrichedEvent(
        id="i",
        source="s",
        type="t",
        time=time,
        received_at="2026-01-31T12:00:00Z",
        enriched_at="2026-01-31T12:00:00Z",
        dataschema="t/1-0-0",
        data=msgspec.Raw(b"{}"),
        receipt=Receipt(collector_id="c", protocol="p"),
    )


def places(batch: RowBatch) -> list[tuple[str, int, int]]:
    names = ["kafka_topic", "kafka_partition", "kafka_offset"]
    tables = [rows_of(batch.items, schema).select(names).to_pydict() for schema in (EVENTS, DEAD_LETTERS)]
    return sorted(place for table in tables for place in zip(*table.values(), strict=True))


def place(message: Message) -> tuple[str, int, int]:
    return message.topic(), message.partition(), message.offset()


CHUNKS = st.lists(
    st.lists(st.builds(Fake, st.sampled_from(PLACES), st.integers(0, 20), st.sampled_from(["2026-01-31T12:00:00Z", "no row", "refused"]))),
    max_size=4,
)


@given(CHUNKS, st.sets(st.sampled_from(PLACES)))
def test_it_holds_what_a_batch_of_messages_holds(chunks: list[list[Fake]], taken_away: set[Partition]) -> None:
    rows, messages = RowBatch(), Batch[Row]()
    for now, chunk in enumerate(chunks):
        rows.add(chunk, parse, now)
        messages.add(chunk, parse, now)
    for _ in ("as read", "after some were taken away"):
        no_row = [m for m, _ in messages.items if m.topic() == "events" and m.value() == b"no row"]
        assert places(rows) == sorted(place(m) for m, _ in messages.items if m not in no_row)
        assert sorted(place(r.message) for r in rows.rejected) == sorted(
            place(m) for m in [*no_row, *(r.message for r in messages.rejected)]
        )
        assert (len(rows), rows.offsets, rows.starts) == (len(messages), messages.offsets, messages.starts)
        assert rows.opened_at == messages.opened_at
        assert rows.is_full(Limits(1, 10**9, 1e9), 0.0) is messages.is_full(Limits(1, 10**9, 1e9), 0.0)
        rows.drop(taken_away)
        messages.drop(taken_away)


def test_messages_are_not_kept() -> None:
    batch = RowBatch()
    batch.add([Fake(EVENTS_AT[0], n) for n in range(1000)], parse, 0.0)
    assert [place(message) for message, _ in batch.items] == [("events", 0, 999)]
    assert rows_of(batch.items, EVENTS).num_rows == len(batch) == 1000
    assert batch.bytes == 1000 * len("2026-01-31T12:00:00Z")


def test_rows_of_a_dead_letter_and_of_an_event_go_to_their_own_tables() -> None:
    batch = RowBatch()
    letter = DeadLetter(
        dead_letter_id="d", service="s", reason=Reason.POISON, detail="", rejected_at="2026-01-31T00:00:00.000Z", payload=""
    )
    of_event = parse(Fake(EVENTS_AT[0], 0))
    values = iter([of_event, letter])
    batch.add([Fake(EVENTS_AT[0], 7), Fake(LETTERS_AT, 8)], lambda _: next(values), 0.0)
    events, letters = (rows_of(batch.items, schema) for schema in (EVENTS, DEAD_LETTERS))
    assert isinstance(events, pa.Table)
    assert (events["id"].to_pylist(), events["kafka_offset"].to_pylist()) == (["i"], [7])
    assert (letters["dead_letter_id"].to_pylist(), letters["kafka_offset"].to_pylist()) == (["d"], [8])
