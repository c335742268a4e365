"""Apache Kafka, one KRaft node that is broker and controller at once."""

import base64
import contextlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from headrace.kafka import ensure_topics, topics
from runtime import java
from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.fetching import run
from runtime.maven import fetch_jars
from runtime.probes import port_open

_POM = Path(__file__).parent.parent / "maven" / "kafka"
_LOGGING = """\
# To the console only: the supervisor keeps and rotates what is printed.
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


class Kafka:
    """The broker, with the platform's topics."""

    name = "kafka"
    profile = "core"
    apt: Sequence[str] = (java.PACKAGE, "maven")

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The jars."""
        fetch_jars(_POM, place.servers / "kafka-jars", say)

    def configure(self, place: Place) -> None:
        """server.properties, and the data folder formatted at the first start."""
        host, port, controller = place.env["BIND_HOST"], place.env["KAFKA_PORT"], place.env["KAFKA_CONTROLLER_PORT"]
        data = place.data(self.name)
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{host}:{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{host}:{port}",
            "log.dirs": data,
            # A misspelt topic is an error, not a new topic.
            "auto.create.topics.enable": "false",
            "num.partitions": place.env["KAFKA_PARTITIONS"],
            # One node: these default to three copies.
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            # Their defaults (50) are for clusters; here they cost files and start-up time.
            "offsets.topic.num.partitions": 10,
            "transaction.state.log.num.partitions": 10,
            "group.initial.rebalance.delay.ms": 0,
        }
        conf = place.conf(self.name)
        (conf / "server.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (conf / "log4j2.properties").write_text(_LOGGING)
        if not (data / "meta.properties").is_file():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            arguments = ["format", f"--cluster-id={cluster}", "-c", str(conf / "server.properties")]
            run([*self._java(place), "-Xmx128m", "kafka.tools.StorageTool", *arguments], "formatting Kafka's data folder")

    def programs(self, place: Place) -> Sequence[Program]:
        """The broker."""
        conf = place.conf(self.name)
        options = ["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]
        options.append(f"-Dlog4j2.configurationFile={conf / 'log4j2.properties'}")
        return [
            Program(
                name=self.name,
                command=[*self._java(place), *options, "kafka.Kafka", str(conf / "server.properties")],
                ready=lambda: _answers(place),
                ports={"clients": "KAFKA_PORT", "controller": "KAFKA_CONTROLLER_PORT"},
                provision=lambda: _make_topics(place),
                stop_within=30,
            )
        ]

    @staticmethod
    def _java(place: Place) -> list[str]:
        return [str(java.binary("java")), "-cp", f"{place.servers / 'kafka-jars'}/*"]


def _client(place: Place) -> AdminClient:
    return AdminClient({"bootstrap.servers": f"{place.env['BIND_HOST']}:{place.env['KAFKA_PORT']}", "log_level": 0})


def _answers(place: Place) -> bool:
    if port_open(place.env["BIND_HOST"], int(place.env["KAFKA_PORT"])):
        with contextlib.suppress(KafkaException):
            return bool(_client(place).list_topics(timeout=3).brokers)
    return False


def _make_topics(place: Place) -> None:
    try:
        ensure_topics(_client(place), topics(int(place.env["KAFKA_PARTITIONS"])))
    except KafkaException as error:
        raise RuntimeFailure(f"making the Kafka topics failed: {error.args[0].str()}") from None
