"""From messages to Arrow rows of `lake.bronze`, one column at a time. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import accumulate
from operator import attrgetter
from typing import TypeVar

import msgspec
import pyarrow as pa

from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent
from headrace.messages import Message, Partition, Rejected

T = TypeVar("T")
Items = Sequence[tuple[Message, T]]

_TEXT = pa.string()
_MOMENT = pa.timestamp("us", tz="UTC")


def _schema(*columns: tuple[Sequence[str], pa.DataType]) -> pa.Schema:
    return pa.schema([(name, kind) for names, kind in columns for name in names])


_KAFKA = (["kafka_topic"], _TEXT), (["kafka_partition"], pa.int32()), (["kafka_offset"], pa.int64())

EVENTS = _schema(
    (["id", "source", "type"], _TEXT),
    (["time"], _MOMENT),
    (["subject", "dataschema", "data", "enrichment"], _TEXT),
    (["received_at", "enriched_at", "loaded_at"], _MOMENT),
    (["collector_id", "protocol", "key_id", "client", "user_agent"], _TEXT),
    *_KAFKA,
)
DEAD_LETTERS = _schema(
    (["dead_letter_id", "service", "reason", "detail"], _TEXT),
    (["rejected_at"], _MOMENT),
    (["payload", "payload_encoding", "id", "source", "type", "subject", "time"], _TEXT),
    (["received_at"], _MOMENT),
    (["key_id", "origin_topic"], _TEXT),
    (["origin_partition"], pa.int32()),
    (["origin_offset"], pa.int64()),
    (["loaded_at"], _MOMENT),
    *_KAFKA,
)
_RECEIPT = ("collector_id", "protocol", "key_id", "client", "user_agent")
_RAW = ("data", "enrichment")


def _getter(name: str) -> Callable[[object], object]:
    return attrgetter(f"receipt.{name}" if name in _RECEIPT else name)


def _own(schema: pa.Schema, get: Callable[[str], Callable[[object], object]]) -> list[tuple[str, pa.DataType, Callable[[object], object]]]:
    """The columns that come from the value of a message, with their types and how to get them."""
    return [
        (field.name, field.type, get(field.name)) for field in schema if not field.name.startswith("kafka_") and field.name != "loaded_at"
    ]


_OF_EVENT = _own(EVENTS, _getter)
_OF_DEAD_LETTER = _own(DEAD_LETTERS, attrgetter)


def _rows(items: Items[T], own: Iterable[tuple[str, pa.DataType, Callable[[object], object]]], schema: pa.Schema) -> pa.RecordBatch:
    messages, values = [message for message, _ in items], [value for _, value in items]
    columns = {name: _column(kind, list(map(get, values)), raw=name in _RAW) for name, kind, get in own}
    columns["kafka_topic"] = pa.array([message.topic() for message in messages], _TEXT)
    columns["kafka_partition"] = pa.array([message.partition() for message in messages], pa.int32())
    columns["kafka_offset"] = pa.array([message.offset() for message in messages], pa.int64())
    columns["loaded_at"] = pa.nulls(len(items), _MOMENT)
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _column(kind: pa.DataType, values: list[object], raw: bool) -> pa.Array:
    """Moments come as RFC 3339 text, and JSON as views into the messages: Arrow reads both a column at a time."""
    if raw:
        return _text_of(values)  # type: ignore[arg-type]
    if pa.types.is_timestamp(kind):
        return pa.array(values, _TEXT).cast(kind)
    return pa.array(values, kind)


def _text_of(raws: Sequence[msgspec.Raw]) -> pa.Array:
    """JSON text as a column, copied once; Arrow checks that it is UTF-8."""
    ends = pa.array(list(accumulate((len(memoryview(raw)) for raw in raws), initial=0)), pa.int32())
    together = pa.py_buffer(b"".join(raws))
    return pa.Array.from_buffers(pa.binary(), len(raws), [None, ends.buffers()[1], together]).cast(_TEXT)


def event_rows(items: Items[EnrichedEvent]) -> pa.RecordBatch:
    """Rows of `lake.bronze.events`, not loaded yet. Raises pyarrow.ArrowInvalid where one of them cannot be."""
    return _rows(items, _OF_EVENT, EVENTS)


def dead_letter_rows(items: Items[DeadLetter]) -> pa.RecordBatch:
    """Rows of `lake.bronze.dead_letters`, not loaded yet."""
    return _rows(items, _OF_DEAD_LETTER, DEAD_LETTERS)


def first_offsets(rows: pa.Table) -> dict[Partition, int]:
    """The first offset of each partition of Kafka that `rows` came from."""
    firsts = rows.group_by(["kafka_topic", "kafka_partition"]).aggregate([("kafka_offset", "min")])
    return {(topic, partition): offset for topic, partition, offset in zip(*firsts.to_pydict().values(), strict=True)}


def loaded(rows: pa.Table, at: datetime) -> pa.Table:
    """`rows` with `loaded_at`."""
    place = rows.schema.get_field_index("loaded_at")
    return rows.set_column(place, rows.schema.field(place), pa.repeat(pa.scalar(at, _MOMENT), rows.num_rows))


def sorted_out(build: Callable[[Items[T]], pa.RecordBatch], items: Items[T]) -> tuple[pa.RecordBatch, list[Rejected]]:
    """The rows of all that can be rows, and the others. Only where there is one of these are all looked at one by one."""
    try:
        return build(items), []
    except (pa.ArrowException, OverflowError):
        good, rejected = [], []
        for item in items:
            try:
                build([item])
                good.append(item)
            except (pa.ArrowException, OverflowError) as error:
                rejected.append(Rejected(item[0], Reason.ROW_REJECTED, f"it cannot be a row of the lake: {str(error)[:300]}"))
        return build(good), rejected
