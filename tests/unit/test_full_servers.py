"""What the full profile's servers make of the settings."""

import json
from pathlib import Path

import pytest
import yaml

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


def test_trino_finds_the_files_that_it_looks_for_in_etc(place: Place) -> None:
    for _ in range(2):  # at each start
        trino.Trino().configure(place)
    etc = place.data("trino") / "etc"
    for name, setting in (("access-control", "security.config-file"), ("resource-groups", "resource-groups.config-file")):
        lines = dict(line.split("=", 1) for line in (etc / f"{name}.properties").read_text().splitlines())
        assert json.loads((place.data("trino") / lines[setting]).read_text())


def test_trino_s_rules_are_for_the_user_whom_the_dashboards_ask_with(place: Place) -> None:
    trino.Trino().configure(place)
    rules = json.loads((place.conf("trino") / "rules.json").read_text())
    groups = json.loads((place.conf("trino") / "groups.json").read_text())
    databases = [yaml.safe_load(path.read_text()) for path in (ROOT / "dashboards" / "databases").glob("*.yaml")]
    assert {each["sqlalchemy_uri"].rpartition("/")[0] for each in databases} == {"${SUPERSET_TRINO_URL}"}
    assert place.env["SUPERSET_TRINO_URL"].partition("@")[0] == "trino://superset"
    assert {first["user"] for first, *_ in rules.values()} == {"superset"}
    assert all("user" not in kind[-1] for kind in rules.values())  # everybody else: all
    assert groups["selectors"][0] == {"user": "superset", "group": "trino.dashboards"}
    [root] = groups["rootGroups"]
    assert {each["group"] for each in groups["selectors"]} == {f"trino.{group['name']}" for group in root["subGroups"]}


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
