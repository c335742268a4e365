"""A step that a person starts finds what `make up` brought."""

from pathlib import Path

import pytest

from ml.engines import JARS, KAFKA_JARS, class_path, known
from ml.errors import BadData


def test_what_is_here_and_not_said_is_found(tmp_path: Path) -> None:
    (tmp_path / "spark-jars").mkdir()
    env = {JARS: "", "JAVA17_HOME": "/a/jdk"}
    known(env, tmp_path)
    assert env == {JARS: str(tmp_path / "spark-jars"), "JAVA17_HOME": "/a/jdk"}


def test_what_is_said_stands(tmp_path: Path) -> None:
    (tmp_path / "spark-jars").mkdir()
    (tmp_path / "spark-kafka-jars").mkdir()
    env = {JARS: "elsewhere", "JAVA17_HOME": "/a/jdk"}
    known(env, tmp_path)
    assert (env[JARS], env[KAFKA_JARS]) == ("elsewhere", str(tmp_path / "spark-kafka-jars"))


def test_a_class_path_is_the_jars_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.jar", "a.jar", "notes.txt"):
        (tmp_path / name).touch()
    assert class_path({JARS: str(tmp_path)}, JARS) == f"{tmp_path}/a.jar:{tmp_path}/b.jar"


def test_a_folder_without_jars_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=f"{KAFKA_JARS}={tmp_path}: no jars: `make up PROFILE=models` brings them to .*/spark-kafka-jars"):
        class_path({KAFKA_JARS: str(tmp_path)}, KAFKA_JARS)
    with pytest.raises(BadData, match=f"{JARS}=: no jars"):
        class_path({}, JARS)
