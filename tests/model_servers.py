"""PostgreSQL, MinIO and MLflow of one's own, and the models' environment: the platform's programs, on free ports, in one's own folder."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime import java
from runtime.component import Component, Place
from runtime.envfile import beside
from runtime.fetching import alone
from runtime.servers.minio import Minio
from runtime.servers.mlflow import Mlflow
from runtime.servers.models import Models
from runtime.servers.postgres import Postgres
from runtime.servers.spark import jars
from runtime.supervisor import clean_environment
from tests.collector_real_kafka import ROOT
from verify.ports import free_port


def place_in(folder: Path, settings: Mapping[str, str]) -> Place:
    """A platform's settings as `.env.example` has them, with secrets, ports of our own, and `settings`."""
    from headrace.settings import read_env_file

    ports = {name: str(free_port()) for name in ("POSTGRES_PORT", "MINIO_PORT", "MINIO_CONSOLE_PORT", "MLFLOW_PORT")}
    (folder / "log").mkdir(parents=True, exist_ok=True)
    file = folder / ".env"
    file.write_text(beside((ROOT / ".env.example").read_text(), str(folder), 0, {**ports, **settings}))
    return Place(ROOT, read_env_file(file))


def bring(place: Place) -> None:
    """The environments and data that are missing (some minutes, once)."""
    with alone(place.servers / ".lock"):
        for part in (Mlflow(), Models()):
            part.fetch(place, print)


@contextmanager
def running(place: Place, *parts: Component) -> Iterator[None]:
    """The servers, one after the other, ended in the other order."""
    with ExitStack() as stack:
        for part in parts:
            part.configure(place)
            for program in part.programs(place):
                if program.prepare:
                    program.prepare()
                log = stack.enter_context((place.state / "log" / f"{program.name}.log").open("ab"))
                env = {**clean_environment(), **place.env, **program.environment}
                process = subprocess.Popen(
                    program.command,
                    env=env,
                    cwd=program.directory or ROOT,
                    stdout=log,
                    stderr=log,
                    user=program.required_user,
                    start_new_session=True,
                )
                stack.callback(_end, process, program.stop_signal)
                while not program.ready():
                    assert process.poll() is None, (place.state / "log" / f"{program.name}.log").read_text()[-3000:]
                    time.sleep(0.2)
                if program.provision:
                    program.provision()
        yield


def _end(process: "subprocess.Popen[bytes]", stop: str) -> None:
    process.send_signal(signal.Signals[f"SIG{stop}"])
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def own_servers() -> tuple[Component, ...]:
    """All three."""
    return Postgres(), Minio(), Mlflow()


def environment(place: Place) -> dict[str, str]:
    """What a step of `python -m ml` is given, as Airflow's tasks are."""
    return {**clean_environment(), **place.env, "SPARK_JARS": str(jars(place)), "JAVA17_HOME": str(java.home())}


def python(place: Place) -> str:
    """The Python of the models' environment."""
    return str(place.venvs / "ml" / "bin" / "python")


def step(place: Place, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A step of `python -m ml`, with `settings` beside the place's."""
    env = {**environment(place), **settings}
    return subprocess.run(
        [python(place), "-m", "ml", *arguments], cwd=ROOT, env=env, capture_output=True, text=True, timeout=2400, check=False
    )


def some_customers(file: Path, one_in: int) -> None:
    """Write one in so many of CDNOW's customers, with all their purchases, to `file`."""
    head, *lines = (ROOT / ".runtime/data/cdnow/CDNOW_master.txt").read_text().splitlines()
    file.write_text("\n".join([head, *(line for line in lines if int(line.split()[0]) % one_in == 0)]) + "\n")
