"""Kafka clients as Headrace wants them: the settings here are the guarantees."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import Field, ValidationInfo, field_validator

from headrace import dead_letter, event, replays
from headrace.settings import Settings

Config = dict[str, str | int | float | bool]
T = TypeVar("T")

SERVICES_THAT_REFUSE = ("collector", "enricher", "loader")
_CONFIG = {replays.TOPIC: {"retention.ms": "-1", "retention.bytes": "-1"}}  # what was done is kept for good

DEAD_LETTER_TOPICS = tuple(dead_letter.TOPIC_PREFIX + service for service in SERVICES_THAT_REFUSE)


@dataclass(frozen=True)
class Security:
    """How clients prove who they are to Kafka and keep what they say from others; by default not at all."""

    protocol: str = "plaintext"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""

    def config(self) -> Config:
        """What librdkafka is told of it."""
        told: Config = {"security.protocol": self.protocol}
        if self.protocol.startswith("sasl"):
            told |= {"sasl.mechanism": self.mechanism, "sasl.username": self.username, "sasl.password": self.password}
        if self.ca_file:
            told["ssl.ca.location"] = self.ca_file
        return told


PLAINTEXT = Security()


class KafkaSettings(Settings):
    """How a service reaches Kafka: the same for all of them."""

    kafka_bootstrap_servers: str = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    kafka_security_protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        "plaintext", validation_alias="KAFKA_SECURITY_PROTOCOL"
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", validation_alias="KAFKA_SASL_MECHANISM"
    )
    kafka_sasl_username: str = Field("", validation_alias="KAFKA_SASL_USERNAME", validate_default=True)
    kafka_sasl_password: str = Field("", validation_alias="KAFKA_SASL_PASSWORD", validate_default=True, repr=False)
    kafka_ssl_ca_file: str = Field("", validation_alias="KAFKA_SSL_CA_FILE")

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _goes_with_sasl(cls, value: str, info: ValidationInfo) -> str:
        protocol = info.data.get("kafka_security_protocol", "plaintext")
        if protocol.startswith("sasl") and not value:
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol} needs it")
        if not protocol.startswith("sasl") and value:
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol} sends none: choose sasl_ssl, or leave it empty")
        return value

    @field_validator("kafka_ssl_ca_file")
    @classmethod
    def _goes_with_ssl(cls, value: str, info: ValidationInfo) -> str:
        protocol = info.data.get("kafka_security_protocol", "ssl")
        if value and not protocol.endswith("ssl"):
            raise ValueError(f"KAFKA_SECURITY_PROTOCOL={protocol} uses none: choose ssl or sasl_ssl, or leave it empty")
        if value and not Path(value).is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @property
    def kafka_security(self) -> Security:
        """As clients are told it."""
        return Security(
            self.kafka_security_protocol,
            self.kafka_sasl_mechanism,
            self.kafka_sasl_username,
            self.kafka_sasl_password,
            self.kafka_ssl_ca_file,
        )


def admin_client(bootstrap_servers: str, security: Security = PLAINTEXT) -> AdminClient:
    """Asks the brokers, and changes what they have. To be held in a name: once nobody holds it, no answer comes any more."""
    return AdminClient({"bootstrap.servers": bootstrap_servers, **security.config(), "log_level": 0})


def producer_config(bootstrap_servers: str, *, security: Security = PLAINTEXT, **overrides: str | int | float | bool) -> Config:
    """An idempotent producer that acknowledges only what all in-sync replicas have."""
    return {
        "bootstrap.servers": bootstrap_servers,
        **security.config(),
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
        "delivery.timeout.ms": 30_000,
        "partitioner": "consistent",
        **{name.replace("_", "."): value for name, value in overrides.items()},
    }


def consumer_config(bootstrap_servers: str, group: str, *, security: Security = PLAINTEXT, **overrides: str | int | float | bool) -> Config:
    """A consumer that commits only when told to, reads only committed transactions, and starts a new group at the beginning."""
    return {
        "bootstrap.servers": bootstrap_servers,
        **security.config(),
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
    return {event.RAW_TOPIC: partitions, event.ENRICHED_TOPIC: partitions, **dict.fromkeys((*DEAD_LETTER_TOPICS, replays.TOPIC), 1)}


def ensure_topics(admin: AdminClient, wanted: Mapping[str, int], replication: int = 1) -> list[str]:
    """Make the topics of `wanted` that are not there yet, and name those made. Raises KafkaException."""
    there = admin.list_topics(timeout=15).topics
    new = [NewTopic(name, count, replication, config=_CONFIG.get(name, {})) for name, count in wanted.items() if name not in there]
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


def told(call: Callable[[], T]) -> T:
    """The result of a call of confluent-kafka that serves callbacks. Raises KafkaException after a fatal error, whatever came of it.

    The library (2.16) goes on to call the other callbacks with the exception of the fatal error pending. What gets out is then a
    SystemError or, before Python 3.12, the bare KafkaError, which `except BaseException` does not catch.
    """
    try:
        return call()
    except KafkaError as error:  # type: ignore[misc] # one in C only
        raise KafkaException(error) from None
    except SystemError as error:
        raise KafkaException(KafkaError(KafkaError._FATAL, str(error.__cause__ or error))) from None
