"""How Spark's Kafka is told what the settings say."""

from pathlib import Path
from typing import Any

import pytest

from ml.settings import StreamSettings
from ml.streaming import options


def settings(**of: Any) -> StreamSettings:
    known = {"KAFKA_BOOTSTRAP_SERVERS": "k:9092", "checkpoint": Path("c")}
    return StreamSettings.model_validate({**known, **of})


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in StreamSettings.environment_names():
        monkeypatch.delenv(name, raising=False)


def test_in_the_open_there_is_nothing_to_prove() -> None:
    assert options(settings()) == {"kafka.bootstrap.servers": "k:9092", "kafka.security.protocol": "PLAINTEXT"}


MODULES = {"PLAIN": "plain.PlainLoginModule", "SCRAM-SHA-256": "scram.ScramLoginModule", "SCRAM-SHA-512": "scram.ScramLoginModule"}


@pytest.mark.parametrize(("mechanism", "module"), MODULES.items())
def test_java_is_told_name_password_and_authority(mechanism: str, module: str, tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("x")
    told = options(
        settings(
            KAFKA_SECURITY_PROTOCOL="sasl_ssl",
            KAFKA_SASL_MECHANISM=mechanism,
            KAFKA_SASL_USERNAME="me",
            KAFKA_SASL_PASSWORD='a "quoted\\ one',
            KAFKA_SSL_CA_FILE=str(ca),
        )
    )
    assert told == {
        "kafka.bootstrap.servers": "k:9092",
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": mechanism,
        "kafka.sasl.jaas.config": f'org.apache.kafka.common.security.{module} required username="me" password="a \\"quoted\\\\ one";',
        "kafka.ssl.truststore.type": "PEM",
        "kafka.ssl.truststore.location": str(ca),
    }
