"""MLflow: what models were made of, how good they are, and which one is the champion. Over a database in PostgreSQL and a bucket in S3."""

from collections.abc import Callable, Sequence

from runtime import provision
from runtime.component import Place, Program
from runtime.fetching import digest_of, run
from runtime.migrations import migrate_once
from runtime.probes import http_ok
from runtime.supervisor import clean_environment, log_path
from runtime.venvs import make_venv


class Mlflow:
    """The server with its pages. Clients send it files too: only the server has the bucket's key."""

    name = "mlflow"
    profile = "models"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `mlflow`."""
        make_venv(place, "mlflow", say)

    def configure(self, place: Place) -> None:
        """Everything is in its environment and its command."""

    def programs(self, place: Place) -> Sequence[Program]:
        """One process."""
        env, address = place.env, place.url("MLFLOW_PORT")
        listen = ["--host", env["BIND_HOST"], "--port", env["MLFLOW_PORT"], "--workers", "1"]
        hosts = f"{env['BIND_HOST']}:{env['MLFLOW_PORT']},localhost:{env['MLFLOW_PORT']}"
        return [
            Program(
                name=self.name,
                command=[*_mlflow(place), "server", *listen, "--allowed-hosts", hosts, "--artifacts-destination", env["MLFLOW_ARTIFACTS"]],
                ready=lambda: http_ok(f"{address}/health"),
                after=("postgres", "minio"),
                environment=_environment(place),
                ports={"http": "MLFLOW_PORT"},
                prepare=lambda: _prepare(place),
                url=address,
            )
        ]


def _mlflow(place: Place) -> list[str]:
    return [str(place.venvs / "mlflow" / "bin" / "python"), "-m", "mlflow"]


def _environment(place: Place) -> dict[str, str]:
    """Secrets are not on the command line."""
    env = place.env
    return {
        "MLFLOW_BACKEND_STORE_URI": _database(place),
        "MLFLOW_S3_ENDPOINT_URL": env["S3_ENDPOINT"],
        "AWS_ACCESS_KEY_ID": env["S3_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": env["S3_SECRET_KEY"],
        "AWS_DEFAULT_REGION": env["S3_REGION"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # of its evaluations of language models: more processes, and no use here
        "MALLOC_ARENA_MAX": "2",
        "HOME": str(place.data(Mlflow.name).resolve()),
    }


def _database(place: Place) -> str:
    return place.env["MLFLOW_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://", 1)


def _prepare(place: Place) -> None:
    python, script = place.venvs / "mlflow" / "bin" / "python", place.root / "runtime" / "servers" / "mlflow" / "bring_up_to_date.py"
    provision.make_mlflow(place.env)
    every = {**clean_environment(), **_environment(place)}
    stamp = digest_of(place.root / "requirements" / "mlflow.txt", script)
    log = log_path(place, "mlflow-migrate")
    database = place.env["MLFLOW_DATABASE_URL"].rpartition("/")[2]
    migrate_once(place, database, stamp, lambda: run([str(python), str(script)], "bringing MLflow's database up to date", every, log))
