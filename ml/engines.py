"""What Spark runs on, for who starts a step by hand: what `make up` brought. Airflow's tasks are given it."""

from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from pathlib import Path

from ml.errors import BadData
from runtime import java
from runtime.errors import RuntimeFailure

JARS, KAFKA_JARS, JAVA = "SPARK_JARS", "SPARK_KAFKA_JARS", "JAVA17_HOME"
_FOLDERS = {JARS: "spark-jars", KAFKA_JARS: "spark-kafka-jars"}
_SERVERS = Path(__file__).resolve().parent.parent / ".runtime" / "servers"


def known(env: MutableMapping[str, str], servers: Path = _SERVERS) -> None:
    """Set in `env` what is here and not set."""
    for name, folder in _FOLDERS.items():
        if not env.get(name) and (servers / folder).is_dir():
            env[name] = str(servers / folder)
    if not env.get(JAVA):
        with suppress(RuntimeFailure):  # `java` may be on PATH
            env[JAVA] = str(java.home())


def class_path(env: Mapping[str, str], name: str) -> str:
    """The jars in the folder that the setting names. Raises BadData where there are none."""
    jars = sorted(str(jar.absolute()) for jar in Path(env[name]).glob("*.jar")) if env.get(name) else []
    if not jars:
        raise BadData(f"{name}={env.get(name, '')}: no jars: `make up PROFILE=models` brings them to .runtime/servers/{_FOLDERS[name]}")
    return ":".join(jars)
