"""Airflow: what runs curation, on a schedule and by hand. Four processes over one database in PostgreSQL; tasks run under the scheduler."""

import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import java
from runtime.component import Place, Program
from runtime.fetching import digest_of, run
from runtime.migrations import database_url, migrate_once
from runtime.servers.spark import jars
from runtime.supervisor import clean_environment, log_path
from runtime.venvs import make_venv

_API = "airflow-api-server"
_CONFIGURATION = Path(__file__).with_suffix("") / "airflow.cfg"


class Airflow:
    """The API server with its pages, the scheduler, the DAG processor and the triggerer."""

    name = "airflow"
    profile = "full"
    apt: Sequence[str] = (java.PACKAGE,)

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `airflow`."""
        make_venv(place, "airflow", say)

    def configure(self, place: Place) -> None:
        """The password file; all else is in the environment of the processes."""
        passwords = place.conf(self.name) / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({place.env["AIRFLOW_ADMIN_USER"]: place.env["AIRFLOW_ADMIN_PASSWORD"]}) + "\n")

    def programs(self, place: Place) -> Sequence[Program]:
        """The four."""
        address = place.url("AIRFLOW_PORT")
        environment = {**settings(place), **task_environment(place)}

        def program(name: str, part: str, *arguments: str) -> Program:
            return Program(
                name=f"airflow-{name}",
                command=[*_airflow(place), name, *arguments],
                ready=lambda: _healthy(address, part),
                after=(_API,),
                environment=environment,
                stop_within=30,
            )

        api = Program(
            name=_API,
            command=[
                *_airflow(place),
                "api-server",
                "--host",
                place.env["BIND_HOST"],
                "--port",
                place.env["AIRFLOW_PORT"],
                "--workers",
                "1",
            ],
            ready=lambda: _healthy(address, "metadatabase"),
            after=("postgres",),
            environment=environment,
            ports={"http": "AIRFLOW_PORT"},
            prepare=lambda: _migrate(place, environment),
            url=address,
            login=f"{place.env['AIRFLOW_ADMIN_USER']} / {place.env['AIRFLOW_ADMIN_PASSWORD']}",
        )
        # Logs are read from the shared folder: nobody needs the two servers that would hand them out.
        return [
            api,
            program("scheduler", "scheduler", "--skip-serve-logs"),
            program("dag-processor", "dag_processor"),
            program("triggerer", "triggerer", "--skip-serve-logs"),
        ]


def settings(place: Place) -> dict[str, str]:
    """What differs between platforms of Airflow's own settings: the environment that every one of its processes must have alike."""
    address, home = place.url("AIRFLOW_PORT"), place.data("airflow").resolve()
    sections: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": place.root / "dags",
            "fernet_key": place.env["AIRFLOW_FERNET_KEY"],
            "execution_api_server_url": f"{address}/execution/",
            "simple_auth_manager_users": f"{place.env['AIRFLOW_ADMIN_USER']}:admin",
            "simple_auth_manager_passwords_file": place.conf("airflow").resolve() / "passwords.json",
        },
        "database": {
            "sql_alchemy_conn": database_url(place, "airflow", "+psycopg2"),
            "sql_alchemy_conn_async": database_url(place, "airflow", "+asyncpg"),
        },
        "api": {"base_url": address, "secret_key": place.env["AIRFLOW_JWT_SECRET"]},
        "api_auth": {"jwt_secret": place.env["AIRFLOW_JWT_SECRET"]},
        "logging": {"base_log_folder": home / "logs"},
    }
    flat = {f"AIRFLOW__{section}__{key}".upper(): str(value) for section, keys in sections.items() for key, value in keys.items()}
    return {"AIRFLOW_HOME": str(home), "AIRFLOW_CONFIG": str(_CONFIGURATION), "MALLOC_ARENA_MAX": "2", **flat}


def task_environment(place: Place) -> dict[str, str]:
    """Where a task of curation finds the engines that it starts, on top of the settings in .env."""
    return {
        "HEADRACE_ROOT": str(place.root),
        "SPARK_VENV": str(place.venvs / "spark"),
        "SPARK_JARS": str(jars(place)),
        "DBT_VENV": str(place.venvs / "dbt"),
        "MODELS_VENV": str(place.venvs / "ml"),
        "JAVA17_HOME": str(java.home()),
    }


def _airflow(place: Place) -> list[str]:
    return [str(place.venvs / "airflow" / "bin" / "python"), "-m", "airflow"]


def _migrate(place: Place, environment: dict[str, str]) -> None:
    command = [*_airflow(place), "db", "migrate"]
    every = {**clean_environment(), **environment}
    migrate_once(
        *(place, "airflow", digest_of(place.root / "requirements" / "airflow.txt")),
        lambda: run(command, "migrating Airflow's database", every, log_path(place, "airflow-migrate")),
    )


def _healthy(address: str, part: str) -> bool:
    """Whether the API server answers and says of `part` that it is healthy."""
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=5) as answer:  # noqa: S310
            return bool(json.loads(answer.read())[part]["status"] == "healthy")
    except (OSError, ValueError, KeyError):
        return False
