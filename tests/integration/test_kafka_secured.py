"""The settings of SASL and TLS against a real Kafka that asks for them."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # they are there
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from headrace import event
from headrace.kafka import KafkaSettings, consumer_config, producer_config
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT, RealKafka
from verify.ports import free_port

PASSWORD = "a password of the tests"


class SecuredKafka(RealKafka):
    """Beside the open listener, one for each protocol that asks for a name or a certificate."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("SASL_PLAINTEXT", "SSL", "SASL_SSL")}
        self.ca = folder / "server.crt"
        key = folder / "server.key"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        made: list[str | Path] = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            *subject,
            "-keyout",
            key,
            "-out",
            self.ca,
        ]
        subprocess.run(made, check=True, capture_output=True)
        (folder / "server.pem").write_text(key.read_text() + self.ca.read_text())
        (properties,) = folder.rglob("server.properties")
        there = dict(line.split("=", 1) for line in properties.read_text().splitlines())
        more = ",".join(f"{name}://{address}" for name, address in self.addresses.items())
        settings = {
            "listeners": f"{there['listeners']},{more}",
            "advertised.listeners": f"{there['advertised.listeners']},{more}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,"
            + ",".join(f"{name}:{name}" for name in self.addresses),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": folder / "server.pem",
        }
        for name in ("sasl_plaintext", "sasl_ssl"):
            module = "org.apache.kafka.common.security"
            settings[f"listener.name.{name}.plain.sasl.jaas.config"] = (
                f'{module}.plain.PlainLoginModule required user_headrace="{PASSWORD}";'
            )
            settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = f"{module}.scram.ScramLoginModule required;"
        properties.write_text("".join(f"{name}={value}\n" for name, value in (there | settings).items()))

    def start(self) -> None:
        super().start()
        upsertion = UserScramCredentialUpsertion("headrace", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode())
        admin = AdminClient({"bootstrap.servers": self.address})  # kept while it answers
        for future in admin.alter_user_scram_credentials([upsertion]).values():
            future.result(30)


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    broker = SecuredKafka(tmp_path_factory.mktemp("kafka"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


Settings = dict[str, str]
NAME = {"KAFKA_SASL_USERNAME": "headrace", "KAFKA_SASL_PASSWORD": PASSWORD}


def sasl_plain(kafka: SecuredKafka) -> Settings:
    return {"KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "KAFKA_SASL_MECHANISM": "PLAIN", **NAME}


def sasl_scram(kafka: SecuredKafka) -> Settings:
    return {"KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512", **NAME}


def tls(kafka: SecuredKafka) -> Settings:
    return {"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CA_FILE": str(kafka.ca)}


def sasl_and_tls(kafka: SecuredKafka) -> Settings:
    return sasl_scram(kafka) | {"KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SSL_CA_FILE": str(kafka.ca)}


def address_of(kafka: SecuredKafka, settings: Settings) -> str:
    return kafka.addresses[settings["KAFKA_SECURITY_PROTOCOL"].upper()]


def send(server: CollectorProcess, id: str) -> int:
    body = {"id": id, "source": "s", "type": "login", "subject": "u", "data": {}}
    return httpx.post(f"{server.rest}/v1/events", json=body, auth=(KEY, ""), timeout=30).status_code


@pytest.mark.parametrize("way", [sasl_plain, sasl_scram, tls, sasl_and_tls])
def test_events_pass_and_are_read(kafka: SecuredKafka, way: Callable[[SecuredKafka], Settings], tmp_path: Path) -> None:
    settings = way(kafka)
    address, id = address_of(kafka, settings), way.__name__
    with collector(address, tmp_path, **settings) as server:
        server.wait()
        assert send(server, id) == 200
        assert PASSWORD not in server.log.read_text()
    security = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": address, **settings}).kafka_security
    producer = Producer(producer_config(address, security=security))
    producer.produce(event.RAW_TOPIC, key=f"own-{id}", value=b"{}")
    assert producer.flush(30) == 0
    consumer = Consumer(consumer_config(address, f"test-{id}", security=security))
    consumer.subscribe([event.RAW_TOPIC])
    found: set[bytes] = set()
    while not {f"s\x1f{id}".encode(), f"own-{id}".encode()} <= found:
        message = consumer.poll(60)
        assert message is not None, "nothing came within a minute"
        assert message.error() is None
        found.add(message.key() or b"")
    consumer.close()


@pytest.mark.parametrize(
    ("way", "wrong"),
    [(sasl_plain, "KAFKA_SASL_PASSWORD"), (sasl_scram, "KAFKA_SASL_USERNAME"), (sasl_and_tls, "KAFKA_SASL_PASSWORD")],
)
def test_who_is_not_known_sends_nothing(kafka: SecuredKafka, way: Callable[[SecuredKafka], Settings], wrong: str, tmp_path: Path) -> None:
    settings = way(kafka) | {wrong: "wrong"}
    with collector(address_of(kafka, settings), tmp_path, **settings) as server:
        server.wait("/healthz")
        assert send(server, "never") == 503
        assert httpx.get(f"{server.rest}/readyz", timeout=30).status_code == 503
        assert "it refuses these credentials: look at KAFKA_SASL_USERNAME" in why(server)


def test_a_kafka_with_another_certificate_is_not_trusted(kafka: SecuredKafka, tmp_path: Path) -> None:
    with collector(kafka.addresses["SSL"], tmp_path, KAFKA_SECURITY_PROTOCOL="ssl") as server:
        server.wait("/healthz")
        assert send(server, "never") == 503
        assert "TLS fails: look at KAFKA_SECURITY_PROTOCOL" in why(server)


def why(server: CollectorProcess) -> str:
    """What /readyz says once the collector has looked a second time."""
    for _ in range(100):
        said = httpx.get(f"{server.rest}/readyz", timeout=30).json()["message"]
        if "look at" in said:
            break
        time.sleep(0.1)
    return str(said)


def test_the_command_line_uses_the_same_settings(kafka: SecuredKafka, tmp_path: Path) -> None:
    settings = sasl_and_tls(kafka)
    env = tmp_path / ".env"

    def topics() -> subprocess.CompletedProcess[str]:
        told = {"KAFKA_BOOTSTRAP_SERVERS": address_of(kafka, settings), **settings}
        env.write_text("".join(f"{name}='{value}'\n" for name, value in told.items()))
        command = [sys.executable, "-m", "cli", "topics"]
        return subprocess.run(command, cwd=ROOT, env={"HEADRACE_ENV_FILE": str(env)}, capture_output=True, text=True, check=False)

    done = topics()
    assert (done.returncode, "events.raw" in done.stdout) == (0, True), done.stderr
    settings["KAFKA_SASL_PASSWORD"] = ""
    assert topics().stderr == "headrace: setting KAFKA_SASL_PASSWORD: KAFKA_SECURITY_PROTOCOL=sasl_ssl needs it\n"
    settings["KAFKA_SASL_PASSWORD"] = "wrong"
    assert "Kafka not reachable at" in topics().stderr
