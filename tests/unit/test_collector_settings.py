"""Which settings the collector starts with, and the line that it refuses the others with."""

import os
from typing import Any

import pytest

from collector.settings import CollectorSettings
from headrace.kafka import KafkaSettings, Security, consumer_config, producer_config

GOOD = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092", "HEADRACE_WRITE_KEY": "ready-made", "COLLECTOR_PSEUDONYM_KEY": "x" * 16}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("COLLECTOR_", "KAFKA_", "HEADRACE_")):
            monkeypatch.delenv(name)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **changes: str) -> list[str]:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        CollectorSettings.load()
    return capsys.readouterr().err.splitlines()


def test_what_stands_in_the_example_is_enough() -> None:
    settings = CollectorSettings.load()
    assert (settings.profile, settings.tls, settings.kafka_security) == ("development", None, Security(mechanism="SCRAM-SHA-512"))
    assert settings.origins == ["http://127.0.0.1:8020", "http://localhost:8020"]


def test_production_has_no_ready_made_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(monkeypatch, capsys, HEADRACE_PROFILE="production") == [
        "setting HEADRACE_WRITE_KEY: production starts with no ready-made key: leave it empty, and make keys with "
        "`headrace keys make` (see .env.example)"
    ]
    monkeypatch.setenv("HEADRACE_WRITE_KEY", "")
    assert CollectorSettings.load().write_key == ""
    monkeypatch.delenv("HEADRACE_WRITE_KEY")
    assert CollectorSettings.load().write_key == ""
    (line,) = refused(monkeypatch, capsys, HEADRACE_PROFILE="development")
    assert line.startswith("setting HEADRACE_WRITE_KEY: development needs a ready-made key of at least 8 characters")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"HEADRACE_PROFILE": "prod"}, "setting HEADRACE_PROFILE: Input should be 'development' or 'production'"),
        ({"COLLECTOR_CORS_ORIGINS": "http://a,*"}, "setting COLLECTOR_CORS_ORIGINS: origin '*'"),
        ({"COLLECTOR_CORS_ORIGINS": "http://a/"}, "setting COLLECTOR_CORS_ORIGINS: origin 'http://a/'"),
        ({"COLLECTOR_KEY_EVENTS_PER_SECOND": "-1"}, "setting COLLECTOR_KEY_EVENTS_PER_SECOND: "),
        ({"COLLECTOR_KEY_BYTES_PER_SECOND": "nan"}, "setting COLLECTOR_KEY_BYTES_PER_SECOND: "),
        ({"COLLECTOR_TLS_CERT_FILE": "a"}, "setting COLLECTOR_TLS_KEY_FILE: TLS needs both"),
        ({"COLLECTOR_TLS_KEY_FILE": "a"}, "setting COLLECTOR_TLS_KEY_FILE: TLS needs both"),
        ({"KAFKA_SECURITY_PROTOCOL": "tls"}, "setting KAFKA_SECURITY_PROTOCOL: Input should be 'plaintext', "),
        ({"KAFKA_SASL_USERNAME": "u"}, "setting KAFKA_SASL_USERNAME: KAFKA_SECURITY_PROTOCOL=plaintext sends none"),
        ({"KAFKA_SASL_PASSWORD": "p"}, "setting KAFKA_SASL_PASSWORD: KAFKA_SECURITY_PROTOCOL=plaintext sends none"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SASL_USERNAME": "u"},
            "setting KAFKA_SASL_PASSWORD: KAFKA_SECURITY_PROTOCOL=sasl_ssl needs it",
        ),
        ({"KAFKA_SSL_CA_FILE": "a"}, "setting KAFKA_SSL_CA_FILE: KAFKA_SECURITY_PROTOCOL=plaintext uses none"),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CA_FILE": "x.pem"}, "setting KAFKA_SSL_CA_FILE: there is no file x.pem"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "setting KAFKA_SASL_MECHANISM: Input should be 'PLAIN', "),
    ],
)  # fmt: skip
def test_each_wrong_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, str], start: str
) -> None:
    (line,) = refused(monkeypatch, capsys, **changes)
    assert line.startswith(start)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {"security.protocol": "plaintext"}),
        (
            {"KAFKA_SECURITY_PROTOCOL": "sasl_plaintext", "KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"},
            {"security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p"},
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "ssl", "KAFKA_SSL_CA_FILE": __file__}, {"security.protocol": "ssl", "ssl.ca.location": __file__}),
    ],
)
def test_every_client_of_kafka_is_told(settings: dict[str, str], told: dict[str, Any]) -> None:
    security = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "k:1", **settings}).kafka_security
    assert security.config() == told
    assert told.items() <= producer_config("k:1", security=security).items()
    assert told.items() <= consumer_config("k:1", "g", security=security).items()
    assert "password='p'" not in repr(security)
