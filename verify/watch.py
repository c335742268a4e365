"""How far each consumer is, looked at all the time: when it has caught up after a fault, and whether all is drained at the end."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace import event
from headrace.kafka import DEAD_LETTER_TOPICS, consumer_config
from headrace.lake import LakeSettings, load_catalog
from headrace.messages import Partition

ACKS, ENRICHED, SEARCH, LAKE, CURATED = "acks", "enriched", "search", "lake", "curated"
STATIONS = (ACKS, ENRICHED, SEARCH, LAKE, CURATED)
_TO_LOAD = (event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS)
TOPICS: Mapping[str, Sequence[str]] = {ENRICHED: (event.RAW_TOPIC,), SEARCH: _TO_LOAD, LAKE: _TO_LOAD}
_GROUPS = {ENRICHED: "ENRICHER_GROUP", SEARCH: "REALTIME_LOADER_GROUP", LAKE: "BATCH_LOADER_GROUP"}
_EVERY_SECONDS = 0.5
_KEPT = 1200  # samples
_MARKERS = 3  # transactions' marks at the end of a partition, which no consumer's position passes until a message follows

Offsets = dict[Partition, int]


@dataclass(frozen=True)
class Sample:
    """Where the topics ended at the moment `at` (time.time), and how far each consumer was."""

    at: float
    ends: Offsets
    positions: Mapping[str, Offsets]


def caught_up(samples: Sequence[Sample], station: str, since: float) -> float | None:
    """When everything was past `station` that had come to it by the moment `since`; None where that is not so yet."""
    later = [sample for sample in samples if sample.at >= since]
    if not later:
        return None
    wanted = {partition: end for partition, end in later[0].ends.items() if partition[0] in TOPICS[station]}
    for sample in later:
        position = sample.positions[station]
        if all(position.get(partition, 0) >= end - _MARKERS for partition, end in wanted.items()):
            return sample.at
    return None


class Watch:
    """A thread that samples. Use it as a context."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._servers = f"{env['BIND_HOST']}:{env['KAFKA_PORT']}"
        self._consumers = {station: self._consumer(env[name]) for station, name in _GROUPS.items()}
        partitions = int(env["KAFKA_PARTITIONS"])
        counts = {topic: 1 if topic in DEAD_LETTER_TOPICS else partitions for topic in (event.RAW_TOPIC, *_TO_LOAD)}
        self._partitions = [(topic, number) for topic, count in counts.items() for number in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.samples: deque[Sample] = deque(maxlen=_KEPT)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for consumer in self._consumers.values():
            consumer.close()

    def caught_up(self, station: str, since: float) -> float | None:
        """As the function of that name, over what was seen so far."""
        return caught_up(list(self.samples), station, since)

    def behind(self, station: str) -> int:
        """Messages before `station`, as last seen; some of them may be marks of transactions."""
        if not self.samples:
            return 0
        last = self.samples[-1]
        ours = [partition for partition in last.ends if partition[0] in TOPICS[station]]
        return sum(last.ends[partition] - last.positions[station].get(partition, 0) for partition in ours)

    def _consumer(self, group: str) -> Consumer:
        return Consumer({**consumer_config(self._servers, group), "log_level": 0})

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            with contextlib.suppress(KafkaException):
                self.samples.append(self._sample())

    def _sample(self) -> Sample:
        at, asker = time.time(), self._consumers[ENRICHED]
        ends = {p: asker.get_watermark_offsets(TopicPartition(*p), timeout=2, cached=False)[1] for p in self._partitions}
        return Sample(at, ends, {station: self._positions(station) for station in TOPICS})

    def _positions(self, station: str) -> Offsets:
        asked = [TopicPartition(*partition) for partition in self._partitions if partition[0] in TOPICS[station]]
        return {(p.topic, p.partition): max(0, p.offset) for p in self._consumers[station].committed(asked, timeout=2)}


class Drain:
    """Whether anything is left to do, looked at exactly: by reading what comes after each consumer's position."""

    def __init__(self, env: Mapping[str, str], lake: LakeSettings) -> None:
        self._env = env
        self._lake = lake
        self._servers = f"{env['BIND_HOST']}:{env['KAFKA_PORT']}"

    def left(self) -> dict[str, int]:
        """Messages that each consumer has yet to make final."""
        return {
            ENRICHED: self._after(self._committed(ENRICHED)),
            SEARCH: self._after(self._committed(SEARCH)),
            LAKE: self._after(self._in_lake()),
        }

    def await_nothing(self, within: float) -> dict[str, int]:
        """Wait until nothing is left, at most so many seconds; what is left then."""
        deadline = time.monotonic() + within
        while True:
            left = self.left()
            if not any(left.values()) or time.monotonic() > deadline:
                return left
            time.sleep(1)

    def _partitions(self, consumer: Consumer, topics: Sequence[str]) -> list[Partition]:
        known = consumer.list_topics(timeout=10).topics
        return [(topic, number) for topic in topics for number in known[topic].partitions]

    def _committed(self, station: str) -> Offsets:
        consumer = Consumer({**consumer_config(self._servers, self._env[_GROUPS[station]]), "log_level": 0})
        try:
            asked = [TopicPartition(*partition) for partition in self._partitions(consumer, TOPICS[station])]
            return {(p.topic, p.partition): max(0, p.offset) for p in consumer.committed(asked, timeout=10)}
        finally:
            consumer.close()

    def _in_lake(self) -> Offsets:
        """What the tables say: what the group has committed is for people."""
        catalog = load_catalog(self._lake)
        said: dict[str, Any] = {}
        for table in ("bronze.events", "bronze.dead_letters"):
            said |= catalog.load_table(table).properties
        with self._reader() as consumer:
            partitions = self._partitions(consumer, TOPICS[LAKE])
        return {(topic, number): int(said.get(f"headrace.offset.{topic}.{number}", 0)) for topic, number in partitions}

    @contextlib.contextmanager
    def _reader(self) -> Any:
        consumer = Consumer({**consumer_config(self._servers, "verify.drain"), "enable.partition.eof": True, "log_level": 0})
        try:
            yield consumer
        finally:
            consumer.close()

    def _after(self, positions: Offsets) -> int:
        """Messages (not marks of transactions) from `positions` on."""
        with self._reader() as consumer:
            consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()])
            open_ones, found, deadline = set(positions), 0, time.monotonic() + 30
            while open_ones and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.5):
                    if message.error() is None:
                        found += 1
                    elif message.error().code() == KafkaError._PARTITION_EOF:
                        open_ones.discard((message.topic(), message.partition()))
        return found + len(open_ones)
