"""Every metric of the consumers. Closed: a new one is added here, with its meaning."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

from confluent_kafka import Consumer, KafkaException
from prometheus_client import Counter, Gauge, Histogram

from headrace.messages import Partition

MESSAGES = Counter("headrace_messages", "Messages made final: delivered or dead-lettered, and committed")
REJECTED = Counter("headrace_rejected", "Messages dead-lettered, by reason", ["reason"])
BATCH_MESSAGES = Histogram("headrace_batch_messages", "Messages in a batch", buckets=(1, 10, 100, 1000, 10_000, 100_000))
STEP_SECONDS = Histogram("headrace_step_seconds", "Time of a step of the loop: parse, deliver or commit (with dead letters)", ["step"])
NOT_ENRICHED = Counter("headrace_not_enriched", "Events that the enrichment API has no enrichment of this name for", ["enrichment"])
ENRICHMENT_SKIPPED = Counter(
    "headrace_enrichment_skipped",
    "Events without an optional enrichment, by why it failed (counted again where a batch is repeated)",
    ["enrichment", "why"],
)
CIRCUIT_OPEN = Gauge("headrace_circuit_open", "1 while the enrichment API fails again and again and is not asked")
WAITING = Gauge("headrace_waiting", "1 while something that we depend on is unavailable")
ISOLATING = Gauge("headrace_isolating", "1 while messages that a process ended with are brought through in small batches")
LAG = Gauge("headrace_lag_messages", "Messages in a partition that are not final yet (transaction markers count)", ["topic", "partition"])

_ASK_SECONDS = 1.0


class LagGauge:
    """Keeps LAG up to date, at most every `every` seconds.

    While the consumer reads, each answer to its fetches says where a partition ends. To ask Kafka then would hold all up: a question
    waits behind the fetch that is under way, which waits for messages (fetch.wait.max.ms for each partition asked for).
    """

    def __init__(self, consumer: Consumer, every: float = 5.0) -> None:
        self._consumer = consumer
        self._every = every
        self._next = 0.0
        self._final: dict[Partition, int] = {}

    def final(self, offsets: Mapping[Partition, int]) -> None:
        """These are committed (negative: nothing is)."""
        self._final.update(offsets)

    def update(self, paused: bool) -> None:
        """Set the gauge of each assigned partition, if it is time to. `paused`: some are not read, what the consumer has seen of them
        stands still, so Kafka is asked. That takes a moment where Kafka is away."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        with suppress(KafkaException):  # another time
            for at in self._consumer.assignment():
                place = (at.topic, at.partition)
                seen = not paused and self._final.get(place, -1) >= 0
                low, high = self._consumer.get_watermark_offsets(at, timeout=_ASK_SECONDS, cached=seen) or (-1, -1)
                if high < 0:
                    continue  # Kafka is away, or nothing was fetched yet
                if not seen:  # what Kafka has deleted needs nobody any more
                    self._final[place] = max(low, self._final.get(place, low))
                LAG.labels(at.topic, str(at.partition)).set(max(0, high - self._final[place]))

    def forget(self, partitions: Iterable[Partition]) -> None:
        """No longer ours: another process reports them."""
        for topic, number in partitions:
            self._final.pop((topic, number), None)
            with suppress(KeyError):
                LAG.remove(topic, str(number))
