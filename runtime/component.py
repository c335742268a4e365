"""What a part of the platform tells the runtime about itself. One module of `runtime/servers/` for each server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Env = Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where things are and how they are set: one for each platform on a machine."""

    root: Path  # the checkout
    env: Env  # the .env file, with ${NAME} replaced

    @property
    def servers(self) -> Path:
        """Unpacked and built servers, shared by all platforms of this checkout."""
        return self.root / ".runtime" / "servers"

    @property
    def venvs(self) -> Path:
        """Virtual environments of Airflow, Superset, Spark and dbt, shared likewise."""
        return self.root / ".runtime" / "venvs"

    @property
    def state(self) -> Path:
        """What belongs to this platform alone: conf/<name>, data/<name>, log/<program>.log, run/."""
        return self.root / self.env["STATE_DIR"]

    def conf(self, name: str) -> Path:
        """The folder of generated configuration of a component."""
        return self._made(self.state / "conf" / name)

    def data(self, name: str) -> Path:
        """The folder in which a component keeps its data."""
        return self._made(self.state / "data" / name)

    def url(self, port_setting: str, scheme: str = "http") -> str:
        """The address of one of our ports, such as `url("TRINO_PORT")`."""
        return f"{scheme}://{self.env['BIND_HOST']}:{self.env[port_setting]}"

    @staticmethod
    def _made(path: Path) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Program:
    """One supervised process.

    It starts once all programs named in `after` are ready and their `provision` has run, and after its own `prepare` (idempotent: a
    database migration), which raises RuntimeFailure where that fails; `ready` is asked until it returns True (a
    refused connection is a plain False, never an exception); then `provision` runs, idempotent, at every `make up`.
    `make up` restarts a program that runs already only where its command, its environment or its component's configuration changed.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    after: Sequence[str] = ()
    environment: Env = field(default_factory=dict)  # on top of the .env settings
    directory: Path | None = None  # the checkout, where None
    ports: Mapping[str, str] = field(default_factory=dict)  # what a person calls it -> name of the setting
    prepare: Callable[[], None] | None = None
    provision: Callable[[], None] | None = None
    url: str | None = None  # where a person looks
    login: str | None = None  # "user / password", where one is needed
    ready_within: float = 300  # seconds; long, since a busy machine is slow, and a program that ends again and again is noticed sooner
    stop_within: float = 20  # seconds between SIGTERM and SIGKILL, for the whole process group
    stop_signal: str = "TERM"
    required_user: str | None = None  # run as this user where we are root
    ends: bool = False  # it may end with exit code 0 when its work is done


class Component(Protocol):
    """A server with all that belongs to it. Components of the profile `core` come without Airflow, Trino and Superset."""

    name: str
    profile: str  # "core" or "full"
    apt: Sequence[str]  # Debian packages that must be there

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """Bring what is missing into `place.servers` or `place.venvs`; nothing where all is there. Calls run in parallel threads."""

    def configure(self, place: Place) -> None:
        """Write configuration files from the settings. Runs before each start."""

    def programs(self, place: Place) -> Sequence[Program]:
        """The processes, in no particular order."""
