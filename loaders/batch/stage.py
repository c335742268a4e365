"""The batch loader: enriched events and all dead letters into `lake.bronze`.

It is a stage and keeps its progress itself: messages become rows as they come (RowBatch), `deliver` writes them into files, and `finish`
commits these to the lake together with their offsets. What the group has committed in Kafka is for people who look at lag; reading starts
where the tables say.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
import pyarrow as pa
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from pyiceberg.manifest import DataFile

from headrace import event
from headrace.dead_letter import DeadLetter, Invalid, Reason, Unavailable
from headrace.messages import Message, Partition, Rejected, letter_in
from headrace.progress import publish
from headrace.runner import Rewind
from loaders.batch import rows
from loaders.batch.row_batch import Row, rows_of
from loaders.batch.table import BronzeTable

SERVICE = "batch-loader"
_SCHEMAS = rows.EVENTS, rows.DEAD_LETTERS
_CALL_SECONDS = 10.0
_FILES_KEEP_SECONDS = 3600.0  # a removal of orphans spares files of this age by far


class _Written(NamedTuple):
    """Files of a batch that are in the store, and not committed."""

    rows: Sequence[Row]
    at: float
    files: tuple[list[DataFile], list[DataFile]]

    def are_of(self, items: Sequence[tuple[Message, Row]], now: float) -> bool:
        same = len(items) == len(self.rows) and all(item[1] is row for item, row in zip(items, self.rows, strict=True))
        return same and now - self.at < _FILES_KEEP_SECONDS


class LakeStage:
    """Stage and Progress of the batch loader.

    `open_tables` gives the table of events and that of dead letters; the topic of the first is `events_topic`. What cannot be loaded
    goes to the dead-letter topic `letters_to`.
    """

    def __init__(
        self,
        consumer: Consumer,
        producer: Producer,
        open_tables: Callable[[], tuple[BronzeTable, BronzeTable]],
        events_topic: str,
        letters_to: str,
    ) -> None:
        self._consumer = consumer
        self._producer = producer
        self._open_tables = open_tables
        self._events_topic = events_topic
        self._letters_to = letters_to
        self._log = structlog.get_logger()
        self._unsettled: list[TopicPartition] = []
        self._starts: dict[Partition, int] = {}
        self._written: _Written | None = None

    # ---- Stage ----

    def parse(self, message: Message) -> Row:
        """An enriched event or a dead letter (of which there is one in any case)."""
        if message.topic() != self._events_topic:
            return letter_in(SERVICE, message)
        try:
            return event.decode_enriched(message.value() or b"")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(Reason.UNPARSEABLE, f"not an event as the enricher writes it: {error}") from None

    def deliver(self, items: Sequence[tuple[Message, Row]]) -> Sequence[Rejected]:
        """The rows of a RowBatch as files, ready for `finish`. What an earlier attempt with the same rows wrote is used again."""
        now = time.monotonic()
        if self._written is None or not self._written.are_of(items, now):
            events, letters = (self._file(table, rows_of(items, schema)) for table, schema in zip(self._tables, _SCHEMAS, strict=True))
            self._written = _Written([row for _, row in items], now, (events, letters))
        return []

    def _file(self, table: BronzeTable, of: pa.Table) -> list[DataFile]:
        for (topic, partition), offset in rows.first_offsets(of).items():
            if offset < self._starts[topic, partition]:
                raise RuntimeError(f"{topic}/{partition} is read at {offset}, before where it was to start")
        return table.write(rows.loaded(of, datetime.now(UTC)))

    # ---- Progress ----

    only_kafka = False

    def start(self) -> None:
        """Open the tables, which are made where they are not there yet."""
        self._tables = self._open_tables()

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Paused until `settle` has looked where to start: the lake cannot be asked inside a poll."""
        self._consumer.incremental_assign([TopicPartition(p.topic, p.partition, OFFSET_BEGINNING) for p in partitions])
        self._consumer.pause(list(partitions))
        self._unsettled += partitions

    def settle(self) -> None:
        """Seek to where the tables say. What they say is beyond the topic where Kafka lost or removed messages: then from its beginning."""
        if not self._unsettled:
            return
        ours = {(p.topic, p.partition) for p in self._consumer.assignment()}
        open_ones = {(p.topic, p.partition) for p in self._unsettled} & ours
        said = {partition: offset for table in self._tables for partition, offset in table.look_up(_of(table, open_ones)).items()}
        try:
            starts = [self._start_of(partition, offset) for partition, offset in said.items()]
            for start in starts:
                self._consumer.seek(start)
        except KafkaException as error:
            raise Unavailable(f"Kafka: {error.args[0].str()}") from error
        self._starts |= {(start.topic, start.partition): start.offset for start in starts}
        self._unsettled = []
        self._consumer.resume(starts)
        if starts:
            self._log.info("reading from", offsets={f"{start.topic}/{start.partition}": start.offset for start in starts})

    def _start_of(self, partition: Partition, said: int | None) -> TopicPartition:
        place = TopicPartition(*partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_CALL_SECONDS) or (0, 0)
        in_step = said is None or low <= said <= high
        if not in_step:
            self._log.error(
                "the lake is not in step with Kafka: reading from the beginning", topic=place.topic, lake=said, kafka=[low, high]
            )
        place.offset = said if said is not None and in_step else low
        return place

    def begin(self) -> None:
        """Nothing to begin."""

    def finish(self, letters: Sequence[DeadLetter], offsets: Mapping[Partition, int]) -> None:
        """Dead letters first; then each table with its offsets. A table that has them already (an earlier attempt) is left as it is."""
        publish(self._producer, self._letters_to, letters)
        files = self._written.files if self._written else ([], [])
        try:
            for table, its_files in zip(self._tables, files, strict=True):
                moved = _of(table, offsets)
                if moved:
                    table.append(its_files, {partition: offsets[partition] for partition in moved})
        except Rewind:
            self._written = None
            self._unsettle_all()
            raise
        self._written = None
        self._consumer.commit(offsets=[TopicPartition(*partition, offset) for partition, offset in offsets.items()], asynchronous=True)

    def _unsettle_all(self) -> None:
        self._unsettled = self._consumer.assignment()
        self._consumer.pause(self._unsettled)

    def abandon(self) -> None:
        """What was written to the store and not committed to the catalog, nobody sees."""


def _of(table: BronzeTable, partitions: "Mapping[Partition, int] | set[Partition]") -> set[Partition]:
    return {partition for partition in partitions if partition[0] in table.topics}
