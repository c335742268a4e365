"""Settings: typed, from the environment, and wrong ones are named in one line each."""

import os
from pathlib import Path

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.settings import Settings, read_env_file, use_env_file


class SampleSettings(Settings):
    model_config = SettingsConfigDict(env_prefix="SAMPLE_")

    servers: str = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    rows: int = 10


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith("SAMPLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9092")
    return monkeypatch


def test_reads_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SAMPLE_ROWS", "7")
    settings = SampleSettings.load()
    assert (settings.servers, settings.rows) == ("127.0.0.1:9092", 7)
    assert SampleSettings.environment_names() == {"KAFKA_BOOTSTRAP_SERVERS", "SAMPLE_ROWS"}


def test_names_each_wrong_setting(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    environment.delenv("KAFKA_BOOTSTRAP_SERVERS")
    environment.setenv("SAMPLE_ROWS", "many")
    environment.setenv("SAMPLE_ROW", "7")
    with pytest.raises(SystemExit) as ended:
        SampleSettings.load()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "setting SAMPLE_ROW: no such setting; known are KAFKA_BOOTSTRAP_SERVERS, SAMPLE_ROWS"
    assert lines[1] == "setting KAFKA_BOOTSTRAP_SERVERS: Field required (see .env.example)"
    assert lines[2].startswith("setting SAMPLE_ROWS: Input should be a valid integer")
    assert len(lines) == 3


def test_an_env_file_refers_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "elsewhere")
    path = tmp_path / ".env"
    path.write_text("# comment\nHOST=127.0.0.1\nPORT=1\nURL=http://${HOST}:${PORT}/\nEMPTY=\nSECRET=a#b$c\n")
    assert read_env_file(path) == {"HOST": "127.0.0.1", "PORT": "1", "URL": "http://127.0.0.1:1/", "EMPTY": "", "SECRET": "a#b$c"}


def test_a_missing_env_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="`make up` writes it at the first start"):
        read_env_file(tmp_path / ".env")


def test_the_environment_goes_before_the_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KAFKA_BOOTSTRAP_SERVERS=file:1\nSAMPLE_ROWS=3\n")
    environment.setenv("HEADRACE_ENV_FILE", str(path))
    environment.setenv("SAMPLE_ROWS", "set, to be restored")
    environment.delenv("SAMPLE_ROWS")
    use_env_file()
    settings = SampleSettings.load()
    assert (settings.servers, settings.rows) == ("127.0.0.1:9092", 3)
