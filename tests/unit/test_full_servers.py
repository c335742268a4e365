"""What the full profile's servers make of the settings."""

import json
from pathlib import Path

import pytest

from runtime import java
from runtime.component import Place
from runtime.envfile import resolved, with_secrets
from runtime.migrations import database_url
from runtime.servers import airflow, trino
from runtime.services import Services
from runtime.tables import running

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def place(tmp_path: Path) -> Place:
    env = resolved(with_secrets((ROOT / ".env.example").read_text()))
    return Place(root=ROOT, env=env | {"STATE_DIR": str(tmp_path)})


def test_jdbc_takes_user_and_password_apart_and_unquotes_them() -> None:
    assert trino.jdbc_settings("postgresql://some%40body:p%2Fw@db.example:5433/lake") == {
        "LAKE_JDBC_URL": "jdbc:postgresql://db.example:5433/lake",
        "LAKE_JDBC_USER": "some@body",
        "LAKE_JDBC_PASSWORD": "p/w",
    }


def test_what_uses_the_ready_made_key_is_not_in_production(place: Place) -> None:
    production = Place(root=ROOT, env={**place.env, "HEADRACE_PROFILE": "production", "HEADRACE_WRITE_KEY": ""})
    everything, there = ([program.name for program in Services().programs(one)] for one in (place, production))
    assert [name for name in everything if name not in there] == ["shop", "cdnow-replay"]
    assert running(place, []).caption == f"Write key for sending events: {place.env['HEADRACE_WRITE_KEY']}"
    assert running(production, []).caption == "`bin/headrace keys make --source NAME` makes a write key"


def test_trino_s_files_hold_no_secret(place: Place) -> None:
    trino.Trino().configure(place)
    text = "".join(path.read_text() for path in place.conf("trino").rglob("*.*") if path.is_file())
    secrets = [value for key, value in place.env.items() if value and ("PASSWORD" in key or "SECRET" in key)]
    assert secrets
    assert "${ENV:S3_SECRET_KEY}" in text
    assert not [secret for secret in secrets if secret in text]


def test_a_database_s_address(place: Place) -> None:
    password = place.env["POSTGRES_PASSWORD"]
    assert database_url(place, "airflow", "+asyncpg") == f"postgresql+asyncpg://headrace:{password}@127.0.0.1:15432/airflow"


def test_airflow_s_password_file_is_the_owner_s_alone(place: Place) -> None:
    airflow.Airflow().configure(place)
    passwords = place.conf("airflow") / "passwords.json"
    assert json.loads(passwords.read_text()) == {"admin": place.env["AIRFLOW_ADMIN_PASSWORD"]}
    assert passwords.stat().st_mode & 0o077 == 0


def test_every_process_of_airflow_has_the_same_secrets_and_folders(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "home", lambda: Path("/jdk"))
    programs = {program.name: program for program in airflow.Airflow().programs(place)}
    assert set(programs) == {"airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"}
    first = programs["airflow-api-server"].environment
    assert all(program.environment == first for program in programs.values())
    assert first["AIRFLOW__API_AUTH__JWT_SECRET"] == place.env["AIRFLOW_JWT_SECRET"]
    assert first["AIRFLOW__CORE__DAGS_FOLDER"] == str(ROOT / "dags")
    assert {"HEADRACE_ROOT": str(ROOT), "JAVA17_HOME": "/jdk"}.items() <= first.items()
