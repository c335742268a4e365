"""Superset: the dashboards in `dashboards/`, there as soon as it is up."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.component import Place, Program
from runtime.dashboards import import_dashboards
from runtime.fetching import digest_of, run
from runtime.migrations import database_url, migrate_once
from runtime.probes import http_ok
from runtime.supervisor import clean_environment, log_path
from runtime.venvs import make_venv

_HERE = Path(__file__).with_suffix("")


class Superset:
    """One process with a few threads."""

    name = "superset"
    profile = "full"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `superset`."""
        make_venv(place, "superset", say)

    def configure(self, place: Place) -> None:
        """superset_config.py, which reads the settings from the environment."""
        conf = place.conf(self.name)
        shutil.rmtree(conf)
        conf.mkdir()
        shutil.copyfile(_HERE / "superset_config.py", conf / "superset_config.py")

    def programs(self, place: Place) -> Sequence[Program]:
        """The web server."""
        address = place.url("SUPERSET_PORT")
        environment = {
            "SUPERSET_CONFIG_PATH": str((place.conf(self.name) / "superset_config.py").resolve()),
            "SUPERSET_DATABASE_URL": database_url(place, "superset", "+psycopg2"),
            "SUPERSET_HOME": str(place.data(self.name).resolve()),
            "MALLOC_ARENA_MAX": "2",
            "PYTHONDONTWRITEBYTECODE": "1",  # the folder of the configuration stays as it was written
            "TZ": "UTC",  # "now" in a filter is the time that the events' columns are in
        }
        listen = f"{place.env['BIND_HOST']}:{place.env['SUPERSET_PORT']}"
        command = [str(_python(place)), "-m", "gunicorn", "--bind", listen, "--workers", "1", "--worker-class", "gthread", "--threads", "8"]
        command += ["--timeout", "180", "--log-level", "warning", "superset.app:create_app()"]
        return [
            Program(
                name=self.name,
                command=command,
                ready=lambda: http_ok(f"{address}/health"),
                after=("postgres",),
                environment=environment,
                ports={"http": "SUPERSET_PORT"},
                prepare=lambda: _bring_up_to_date(place, environment),
                provision=lambda: import_dashboards(place),
                url=address,
                login=f"{place.env['SUPERSET_ADMIN_USER']} / {place.env['SUPERSET_ADMIN_PASSWORD']}",
            )
        ]


def _python(place: Place) -> Path:
    return place.venvs / "superset" / "bin" / "python"


def _bring_up_to_date(place: Place, environment: dict[str, str]) -> None:
    script = _HERE / "bring_up_to_date.py"
    logins = " ".join(place.env[f"SUPERSET_{which}_{what}"] for which in ("ADMIN", "VIEWER") for what in ("USER", "PASSWORD"))
    stamp = f"{digest_of(place.root / 'requirements' / 'superset.txt', script)} {hashlib.sha256(logins.encode()).hexdigest()}"
    every = {**clean_environment(), **place.env, **environment}
    command = [str(_python(place)), str(script)]
    what = "bringing Superset's database up to date"
    migrate_once(place, "superset", stamp, lambda: run(command, what, every, log_path(place, "superset-migrate")))
