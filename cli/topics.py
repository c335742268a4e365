"""`headrace topics`: what stands in Kafka."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from confluent_kafka import Consumer, KafkaException, TopicPartition
from rich.table import Table

from cli.context import not_reachable, out, settings
from headrace import dead_letter, event
from headrace.kafka import DEAD_LETTER_TOPICS, consumer_config

Env = Mapping[str, str]
Offsets = dict[int, tuple[int, int]]  # partition -> first offset, next offset


def topics() -> None:
    """Show how many messages stand in each topic, and the dead letters by reason."""
    table = Table("topic", "messages", "dead letters by reason", box=None, pad_edge=False, header_style="bold")
    table.columns[1].justify = "right"
    with _consumer(settings()) as consumer:
        for topic in (event.RAW_TOPIC, event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS):
            offsets = _offsets(consumer, topic)
            if offsets is None:
                table.add_row(topic, "-", "not there: `make up` makes it")
            elif topic in DEAD_LETTER_TOPICS:
                reasons = Counter(_reason(value) for value in _values(consumer, topic, offsets))
                table.add_row(topic, f"{reasons.total():,}", ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common()))
            else:
                count = sum(after - first for first, after in offsets.values())
                # The marker at the end of each transaction has an offset too.
                table.add_row(topic, f"{'≤ ' if topic == event.ENRICHED_TOPIC and count else ''}{count:,}", "")
    out.print(table)


def followed(env: Env, topic: str, from_start: bool = False) -> Iterator[bytes]:
    """The values of `topic` as they come: from now on, or from the oldest."""
    with _consumer(env) as consumer:
        offsets = _offsets(consumer, topic) or {}
        if not offsets:
            raise KafkaException(f"there is no topic {topic}: `make up` makes it")
        consumer.assign([TopicPartition(topic, partition, low if from_start else high) for partition, (low, high) in offsets.items()])
        while True:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                yield message.value() or b""


@contextmanager
def _consumer(env: Env) -> Iterator[Consumer]:
    """A consumer of no group's offsets. Ends the command with one line where Kafka does not answer."""
    servers = env["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer(consumer_config(servers, "headrace.cli", enable_partition_eof=True) | {"log_level": 0})
    try:
        consumer.list_topics(timeout=5)
    except KafkaException:
        not_reachable("Kafka", servers)
    try:
        yield consumer
    finally:
        consumer.close()


def _offsets(consumer: Consumer, topic: str) -> Offsets | None:
    there = consumer.list_topics(timeout=10).topics
    if topic not in there:
        return None
    return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in there[topic].partitions}


def _values(consumer: Consumer, topic: str, offsets: Offsets) -> Iterator[bytes]:
    """What stands in `topic` now."""
    unread = {partition for partition, (low, high) in offsets.items() if low < high}
    consumer.assign([TopicPartition(topic, partition, offsets[partition][0]) for partition in unread])
    while unread:
        for message in consumer.consume(1000, timeout=1.0):
            error = message.error()
            if error is None:
                yield message.value() or b""
            elif error.name() == "_PARTITION_EOF":
                unread.discard(message.partition())
            elif not error.retriable():
                raise KafkaException(error)
    consumer.unassign()


def _reason(value: bytes) -> str:
    try:
        return dead_letter.decode(value).reason.value
    except msgspec.DecodeError:
        return "not of Headrace's form"
