"""A batch of rows: the messages themselves are let go as soon as they are rows.

So a batch of 100,000 messages is a quarter of what the messages and their parsed values take, and each message is parsed and copied while
the processor still has it in its cache.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc

from headrace.batch import Batch
from headrace.dead_letter import DeadLetter
from headrace.event import EnrichedEvent
from headrace.messages import Message, Partition
from loaders.batch.rows import Items, dead_letter_rows, event_rows, first_offsets, sorted_out

T = TypeVar("T")
Row: TypeAlias = "EnrichedEvent | DeadLetter | pa.RecordBatch"


class RowBatch(Batch[Row]):
    """As a Batch, but an item is some of the messages that were read together: the last of them, and the rows of all."""

    def __init__(self) -> None:
        super().__init__()
        self._rows = 0

    def __len__(self) -> int:
        return self._rows + len(self.rejected)

    def add(self, messages: Iterable[Message], parse: Callable[[Message], Row], now: float) -> None:
        """Take `messages` in order. What `parse` refuses, or what cannot be a row, is kept as rejected."""
        before, self.items = self.items, []
        super().add(messages, parse, now)
        fresh, self.items = self.items, before
        self._pack(event_rows, _only(EnrichedEvent, fresh))
        self._pack(dead_letter_rows, _only(DeadLetter, fresh))

    def _pack(self, build: Callable[[Items[T]], pa.RecordBatch], items: Items[T]) -> None:
        if not items:
            return
        rows, rejected = sorted_out(build, items)
        self.rejected += rejected
        if rows.num_rows:
            self.items.append((items[-1][0], rows))
            self._rows += rows.num_rows

    @property
    def starts(self) -> dict[Partition, int]:
        """The first offset of each partition."""
        found: dict[Partition, int] = {}
        of_rows = (first_offsets(pa.Table.from_batches([cast(pa.RecordBatch, rows)])) for _, rows in self.items)
        refused = ({(one.message.topic(), one.message.partition()): one.message.offset()} for one in self.rejected)
        for firsts in (*of_rows, *refused):
            for partition, offset in firsts.items():
                found[partition] = min(offset, found.get(partition, offset))
        return found

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forget all that came from `partitions`: somebody else reads them now."""
        gone = set(partitions)
        held, self.items = [(message, _without(cast(pa.RecordBatch, rows), gone)) for message, rows in self.items], []
        super().drop(gone)
        held = [(message, rows) for message, rows in held if rows.num_rows]
        self.items += held
        self._rows = sum(rows.num_rows for _, rows in held)
        self.bytes += sum(rows.nbytes for _, rows in held)


def _only(kind: type[T], items: Items[Row]) -> Items[T]:
    return [cast(tuple[Message, T], item) for item in items if isinstance(item[1], kind)]


def _without(rows: pa.RecordBatch, partitions: set[Partition]) -> pa.RecordBatch:
    for topic, number in partitions:
        rows = rows.filter(pc.invert(pc.and_(pc.equal(rows["kafka_topic"], topic), pc.equal(rows["kafka_partition"], number))))
    return rows


def rows_of(items: Sequence[tuple[Message, Row]], schema: pa.Schema) -> pa.Table:
    """All rows of one table among the items of a RowBatch, in order. Nothing is copied."""
    batches = [rows for _, rows in items if isinstance(rows, pa.RecordBatch) and rows.schema == schema]
    return pa.Table.from_batches(batches, schema)
