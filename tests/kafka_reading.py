"""What stands in Kafka now, whoever wrote it."""

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from headrace import kafka


def written(address: str, *topics: str) -> list[tuple[bytes, bytes]]:
    """Key and value of every message in `topics`, up to the end that each partition has now."""
    consumer = Consumer(kafka.consumer_config(address, "check", enable_partition_eof=True))
    try:
        known = consumer.list_topics(timeout=10).topics
        parts = [TopicPartition(topic, number, OFFSET_BEGINNING) for topic in topics for number in known[topic].partitions]
        consumer.assign(parts)
        found: list[tuple[bytes, bytes]] = []
        ended: set[tuple[str | None, int | None]] = set()
        while len(ended) < len(parts):
            message = consumer.poll(10)
            assert message is not None, "the broker does not answer"
            error = message.error()
            if error is None:
                found.append((message.key() or b"", message.value() or b""))
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add((message.topic(), message.partition()))
            else:  # an error is no end: what stands behind it would count as lost
                raise AssertionError(f"reading {topics}: {error.str()}")
        return found
    finally:
        consumer.close()
