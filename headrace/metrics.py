"""Every metric of the consumers. Closed: a new one is added here, with its meaning."""

import time
from collections.abc import Iterable
from contextlib import suppress

from confluent_kafka import Consumer
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
LAG = Gauge("headrace_lag_messages", "Messages in a partition that are not read yet (transaction markers count)", ["topic", "partition"])


class LagGauge:
    """Keeps LAG up to date from what the consumer knows anyway, at most every `every` seconds."""

    def __init__(self, consumer: Consumer, every: float = 5.0) -> None:
        self._consumer = consumer
        self._every = every
        self._next = 0.0

    def update(self) -> None:
        """Set the gauge of each assigned partition, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._every
        for partition in self._consumer.position(self._consumer.assignment()):
            _, high = self._consumer.get_watermark_offsets(partition, cached=True)
            if partition.offset >= 0 and high >= 0:
                LAG.labels(partition.topic, str(partition.partition)).set(max(0, high - partition.offset))

    def forget(self, partitions: Iterable[Partition]) -> None:
        """No longer ours: another process reports them."""
        for topic, number in partitions:
            with suppress(KeyError):
                LAG.remove(topic, str(number))
