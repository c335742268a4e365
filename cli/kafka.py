"""Reading topics from the command line: from no group's offsets, and without leaving a trace."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import ValidationError

from cli.context import fail, not_reachable
from headrace.kafka import KafkaSettings, Security, admin_client, consumer_config

Env = Mapping[str, str]
Offsets = dict[int, tuple[int, int]]  # partition -> first offset, next offset


def followed(env: Env, topic: str, from_start: bool = False) -> Iterator[bytes]:
    """The values of `topic` as they come: from now on, or from the oldest."""
    with consumer_of(env) as consumer:
        offsets = offsets_of(consumer, topic) or {}
        if not offsets:
            raise KafkaException(f"there is no topic {topic}: `make up` makes it")
        consumer.assign([TopicPartition(topic, partition, low if from_start else high) for partition, (low, high) in offsets.items()])
        while True:
            message = consumer.poll(1.0)
            if message is not None and message.error() is None:
                yield message.value() or b""


def security_of(env: Env) -> Security:
    """How Kafka is reached. Ends the command with one line where a setting is wrong."""
    try:
        return KafkaSettings.of(env).kafka_security
    except ValidationError as error:
        fail("; ".join(f"setting {problem}" for problem in KafkaSettings.problems(error)))


def admin_of(env: Env) -> AdminClient:
    """Asks the brokers, and changes what they have. Ends the command with one line where a setting is wrong."""
    return admin_client(env["KAFKA_BOOTSTRAP_SERVERS"], security_of(env))


@contextmanager
def consumer_of(env: Env) -> Iterator[Consumer]:
    """A consumer of no group's offsets. Ends the command with one line where Kafka does not answer."""
    servers = env["KAFKA_BOOTSTRAP_SERVERS"]
    consumer = Consumer(consumer_config(servers, "headrace.cli", security=security_of(env), enable_partition_eof=True) | {"log_level": 0})
    try:
        consumer.list_topics(timeout=5)
    except KafkaException:
        not_reachable("Kafka", servers)
    try:
        yield consumer
    finally:
        consumer.close()


def offsets_of(consumer: Consumer, topic: str) -> Offsets | None:
    """First and next offset of each partition of `topic`, or None where there is no such topic. Raises KafkaException."""
    there = consumer.list_topics(timeout=10).topics
    if topic not in there:
        return None
    return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in there[topic].partitions}


def values_in(consumer: Consumer, topic: str, offsets: Offsets) -> Iterator[bytes]:
    """What stands in `topic` from the first of `offsets` to its present end. Raises KafkaException."""
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
