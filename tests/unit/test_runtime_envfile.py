"""The .env file: made from the example, kept in step with it, and strict about names."""

import base64
from pathlib import Path

import pytest

from runtime import envfile
from runtime.errors import RuntimeFailure

EXAMPLE = """\
# where
STATE_DIR=.runtime/state
BIND_HOST=127.0.0.1
# a port
KAFKA_PORT=9092
POSTGRES_PASSWORD=generate
AIRFLOW_FERNET_KEY=generate
KAFKA=${BIND_HOST}:${KAFKA_PORT}
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / ".env.example"
    path.write_text(EXAMPLE)
    return path


def test_the_first_start_writes_secrets_that_only_we_may_read(tmp_path: Path, example: Path) -> None:
    path = tmp_path / ".env"
    assert envfile.ensure_env_file(path, example) == []
    settings = envfile.read(path)
    assert len(settings["POSTGRES_PASSWORD"]) == 40
    assert len(base64.urlsafe_b64decode(settings["AIRFLOW_FERNET_KEY"])) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert "# a port\nKAFKA_PORT=9092\n" in path.read_text()


def test_two_platforms_have_different_secrets() -> None:
    first, second = (envfile.resolved(envfile.with_secrets(EXAMPLE)) for _ in range(2))
    assert first["POSTGRES_PASSWORD"] != second["POSTGRES_PASSWORD"]


def test_a_second_start_changes_nothing(tmp_path: Path, example: Path) -> None:
    path = tmp_path / ".env"
    envfile.ensure_env_file(path, example)
    before = path.read_text()
    assert envfile.ensure_env_file(path, example) == []
    assert path.read_text() == before


def test_settings_of_a_newer_example_are_added_with_their_defaults(tmp_path: Path, example: Path) -> None:
    path = tmp_path / ".env"
    envfile.ensure_env_file(path, example)
    kept = envfile.read(path)["POSTGRES_PASSWORD"]
    example.write_text(EXAMPLE + "NEW_SECRET=generate\nNEW_ADDRESS=http://${KAFKA}\n")
    assert envfile.ensure_env_file(path, example) == ["NEW_SECRET", "NEW_ADDRESS"]
    settings = envfile.read(path)
    assert settings["POSTGRES_PASSWORD"] == kept
    assert len(settings["NEW_SECRET"]) == 40
    assert settings["NEW_ADDRESS"] == "http://127.0.0.1:9092"


def test_an_unknown_setting_is_an_error_that_names_it(tmp_path: Path, example: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(EXAMPLE + "KAFKA_PROT=1\n")
    with pytest.raises(RuntimeFailure, match="no such setting: KAFKA_PROT"):
        envfile.ensure_env_file(path, example)


def test_names_are_replaced_by_the_files_own_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIND_HOST", "0.0.0.0")  # noqa: S104
    assert envfile.resolved(EXAMPLE)["KAFKA"] == "127.0.0.1:9092"


def test_a_missing_file_says_how_it_comes_to_be(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="`make up` writes it"):
        envfile.read(tmp_path / "none")


def test_settings_are_changed_in_place() -> None:
    changed = envfile.with_settings(EXAMPLE, {"STATE_DIR": r"a\1b", "KAFKA": "x"})
    assert envfile.resolved(changed) == envfile.resolved(EXAMPLE) | {"STATE_DIR": r"a\1b", "KAFKA": "x"}
    with pytest.raises(RuntimeFailure, match="KAFKA_PROT"):
        envfile.with_settings(EXAMPLE, {"KAFKA_PROT": "1"})


def test_a_platform_beside_another_has_ports_and_state_of_its_own() -> None:
    settings = envfile.resolved(envfile.beside(EXAMPLE + "ADMIN_PORT=0\n", ".runtime/test", 6000))
    assert settings["ADMIN_PORT"] == "0", "none is none"
    assert settings["KAFKA_PORT"] == "15092"
    assert settings["KAFKA"] == "127.0.0.1:15092"
    assert settings["STATE_DIR"] == ".runtime/test"
