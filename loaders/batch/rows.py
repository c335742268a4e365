"""From messages to Arrow rows of `lake.bronze`, one column at a time. Pure."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import pyarrow as pa

from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent
from headrace.messages import Message, Rejected

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


def _table(items: Items[T], columns: dict[str, list[object]], schema: pa.Schema, loaded_at: datetime) -> pa.Table:
    messages = [message for message, _ in items]
    columns["loaded_at"] = [loaded_at] * len(items)
    columns["kafka_topic"] = [message.topic() for message in messages]
    columns["kafka_partition"] = [message.partition() for message in messages]
    columns["kafka_offset"] = [message.offset() for message in messages]
    return pa.table([_column(columns[field.name], field) for field in schema], schema=schema)


def _column(values: list[object], field: pa.Field) -> pa.Array:
    """Moments come as RFC 3339 text and JSON as bytes: Arrow reads both a column at a time."""
    first = next((value for value in values if value is not None), None)
    if pa.types.is_timestamp(field.type) and isinstance(first, str):
        return pa.array(values, _TEXT).cast(field.type)
    if isinstance(first, bytes):
        return pa.array(values, pa.binary()).cast(field.type)
    return pa.array(values, field.type)


def event_rows(items: Items[EnrichedEvent], loaded_at: datetime) -> pa.Table:
    """Rows of `lake.bronze.events`. Raises pyarrow.ArrowInvalid where one of them cannot be."""
    events = [event for _, event in items]
    columns: dict[str, list[object]] = {
        name: [getattr(event, name) for event in events]
        for name in ("id", "source", "type", "time", "subject", "dataschema", "received_at", "enriched_at")
    }
    columns |= {name: [bytes(getattr(event, name)) for event in events] for name in ("data", "enrichment")}
    receipts = [event.receipt for event in events]
    columns |= {
        name: [getattr(receipt, name) for receipt in receipts] for name in ("collector_id", "protocol", "key_id", "client", "user_agent")
    }
    return _table(items, columns, EVENTS, loaded_at)


def dead_letter_rows(items: Items[DeadLetter], loaded_at: datetime) -> pa.Table:
    """Rows of `lake.bronze.dead_letters`."""
    own = [field.name for field in DEAD_LETTERS if field.name != "loaded_at" and not field.name.startswith("kafka_")]
    columns: dict[str, list[object]] = {name: [getattr(letter, name) for _, letter in items] for name in own}
    return _table(items, columns, DEAD_LETTERS, loaded_at)


def sorted_out(build: Callable[[Items[T], datetime], pa.Table], items: Items[T], loaded_at: datetime) -> tuple[pa.Table, list[Rejected]]:
    """The rows of all that can be rows, and the others. Only a batch with such an event is looked at one by one."""
    try:
        return build(items, loaded_at), []
    except (pa.ArrowException, OverflowError):
        good, rejected = [], []
        for item in items:
            try:
                build([item], loaded_at)
                good.append(item)
            except (pa.ArrowException, OverflowError) as error:
                rejected.append(Rejected(item[0], Reason.ROW_REJECTED, f"it cannot be a row of the lake: {str(error)[:300]}"))
        return build(good, loaded_at), rejected
