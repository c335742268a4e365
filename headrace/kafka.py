"""Kafka clients as Headrace wants them: the settings here are the guarantees."""

from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace import dead_letter, event

Config = dict[str, str | int | float | bool]

SERVICES_THAT_REFUSE = ("collector", "enricher", "loader")
DEAD_LETTER_TOPICS = tuple(dead_letter.TOPIC_PREFIX + service for service in SERVICES_THAT_REFUSE)


def producer_config(bootstrap_servers: str, **overrides: str | int | float | bool) -> Config:
    """An idempotent producer that acknowledges only what all in-sync replicas have."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
        "delivery.timeout.ms": 30_000,
        "partitioner": "consistent",
        **{name.replace("_", "."): value for name, value in overrides.items()},
    }


def consumer_config(bootstrap_servers: str, group: str, **overrides: str | int | float | bool) -> Config:
    """A consumer that commits only when told to, reads only committed transactions, and starts a new group at the beginning."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        "max.poll.interval.ms": 300_000,
        **{name.replace("_", "."): value for name, value in overrides.items()},
    }


def topics(partitions: int) -> Mapping[str, int]:
    """Every topic of the platform with its number of partitions."""
    return {event.RAW_TOPIC: partitions, event.ENRICHED_TOPIC: partitions, **dict.fromkeys(DEAD_LETTER_TOPICS, 1)}


def ensure_topics(admin: AdminClient, wanted: Mapping[str, int], replication: int = 1) -> list[str]:
    """Make the topics of `wanted` that are not there yet, and name those made. Raises KafkaException."""
    there = admin.list_topics(timeout=15).topics
    new = [NewTopic(name, count, replication) for name, count in wanted.items() if name not in there]
    made = []
    for name, future in admin.create_topics(new).items() if new else ():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":  # somebody else was quicker: that is what we wanted
                raise
        else:
            made.append(name)
    return made
