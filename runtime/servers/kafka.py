"""Apache Kafka, one KRaft node that is broker and controller at once."""

import base64
import contextlib
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException

from headrace.kafka import admin_client
from runtime import java, provision
from runtime.component import Place, Program
from runtime.fetching import run
from runtime.maven import fetch_jars
from runtime.probes import port_open

_POM = Path(__file__).parent.parent / "maven" / "kafka"
_FILES = Path(__file__).with_suffix("")
_ASKED = re.compile(r"\$\{env:([A-Z_]+)\}")  # as Kafka's own EnvVarConfigProvider does in a container


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
            "KAFKA_CONTROLLER": f"{host}:{controller}",
            "KAFKA_LISTENERS": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}",
            "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
            "KAFKA_DATA": str(data),
            "KAFKA_PARTITIONS": place.env["KAFKA_PARTITIONS"],
        }
        conf = place.conf(self.name)
        (conf / "server.properties").write_text(with_settings((_FILES / "server.properties").read_text(), settings))
        shutil.copyfile(_FILES / "log4j2.properties", conf / "log4j2.properties")
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
                provision=lambda: provision.make_topics(_address(place), int(place.env["KAFKA_PARTITIONS"])),
                stop_within=30,
            )
        ]

    @staticmethod
    def _java(place: Place) -> list[str]:
        return [str(java.binary("java")), "-cp", f"{place.servers / 'kafka-jars'}/*"]


def with_settings(properties: str, settings: Mapping[str, str]) -> str:
    """The text of server.properties with values for what it asks the environment for, and without comments."""
    lines = [line for line in properties.splitlines() if line and not line.startswith(("#", "config.providers"))]
    return "".join(f"{_ASKED.sub(lambda name: settings[name[1]], line)}\n" for line in lines)


def _address(place: Place) -> str:
    return f"{place.env['BIND_HOST']}:{place.env['KAFKA_PORT']}"


def _answers(place: Place) -> bool:
    if port_open(place.env["BIND_HOST"], int(place.env["KAFKA_PORT"])):
        with contextlib.suppress(KafkaException):
            return bool(admin_client(_address(place)).list_topics(timeout=3).brokers)
    return False
