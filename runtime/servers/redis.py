"""Redis, from Debian: the online store of features. It is a copy of the lake, so nothing is written to disk."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.probes import port_open

PACKAGES = ("redis-tools",)  # it has the server's binary; the package redis-server adds a daemon that Debian starts at once
COMMON = Path(__file__).parent / "redis" / "redis.conf"  # with containers


class Redis:
    """One server that forgets what it held when it ends: who writes it writes it anew."""

    name = "redis"
    profile = "core"
    apt: Sequence[str] = PACKAGES

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The binary is the server where it is called so."""
        del say
        link(place.servers / "redis")

    def configure(self, place: Place) -> None:
        """redis.conf, which holds the password: a command line can be read by everybody."""
        conf = place.conf(self.name) / "redis.conf"
        conf.touch(mode=0o600)
        conf.write_text(config(place.env["BIND_HOST"], place.env["REDIS_PORT"], place.env["REDIS_PASSWORD"], str(place.data(self.name))))

    def programs(self, place: Place) -> Sequence[Program]:
        """The server."""
        host, port = place.env["BIND_HOST"], int(place.env["REDIS_PORT"])
        return [
            Program(
                name=self.name,
                command=[str(place.servers / "redis" / "redis-server"), str(place.conf(self.name) / "redis.conf")],
                ready=lambda: port_open(host, port),
                ports={"Redis": "REDIS_PORT"},
            )
        ]


def link(folder: Path) -> Path:
    """Put `redis-server` into `folder`. Raises RuntimeFailure."""
    binary = shutil.which("redis-check-rdb")
    if binary is None:
        raise RuntimeFailure(f"redis-check-rdb is not on PATH: install it with: sudo apt-get install -y {' '.join(PACKAGES)}")
    folder.mkdir(parents=True, exist_ok=True)
    server = folder / "redis-server"
    if not server.exists():
        server.unlink(missing_ok=True)
        server.symlink_to(binary)
    return server


def config(host: str, port: str, password: str, folder: str) -> str:
    """What includes the common redis.conf, and says what is particular."""
    lines = {
        "include": str(COMMON),
        "bind": host,
        "port": port,
        "requirepass": password,
        "dir": folder,
        "daemonize": "no",
        "logfile": '""',
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
