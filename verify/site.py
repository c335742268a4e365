"""A running platform made ready to be harmed: a proxy between each two processes that talk, and a small disk of its own for MinIO.

The services get other addresses, and Kafka a listener for each of its clients, advertised with the port of that client's proxy. All of it
is undone at the end (`prepared`).
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from runtime.catalog import components, programs_of
from runtime.component import Place
from runtime.errors import RuntimeFailure
from runtime.fetching import alone, run
from runtime.processes import end, family
from runtime.servers.airflow import task_environment
from runtime.servers.kafka import Kafka
from runtime.supervisor import Supervisor, clean_environment, store_script, stored_script
from verify import toxiproxy
from verify.ports import free_port

_DISK_BYTES = 8_000_000_000  # of MinIO's disk; a sparse file, so it takes what it holds
_READY_SECONDS = 180


@dataclass(frozen=True)
class Link:
    """Two that talk: the client's setting that holds the server's address (a URL or host:port), and the setting with the server's port."""

    client: str
    server: str
    setting: str
    port: str

    @property
    def name(self) -> str:
        """Of its proxy."""
        return f"{self.client}-{self.server}"


LINKS = (
    Link("producer", "collector", "", "COLLECTOR_REST_PORT"),
    Link("producer", "collector-grpc", "", "COLLECTOR_GRPC_PORT"),
    Link("collector", "kafka", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PORT"),
    Link("enricher", "kafka", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PORT"),
    Link("enricher", "enrichment-api", "ENRICHMENT_API_URL", "ENRICHMENT_API_PORT"),
    Link("realtime-loader", "kafka", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PORT"),
    Link("realtime-loader", "elasticsearch", "ELASTICSEARCH_URL", "ELASTICSEARCH_PORT"),
    Link("batch-loader", "kafka", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PORT"),
    Link("batch-loader", "minio", "S3_ENDPOINT", "MINIO_PORT"),
    Link("batch-loader", "postgres", "LAKE_CATALOG_URL", "POSTGRES_PORT"),
)
CONSUMERS = ("enricher", "realtime-loader", "batch-loader")
SERVICES = ("collector", *CONSUMERS)
# Commits more often than in everyday use: more of them are there to be broken.
TUNING: Mapping[str, Mapping[str, str]] = {"batch-loader": {"BATCH_LOADER_MAX_AGE_SECONDS": "2"}}


class Site:
    """The platform as the nemesis reaches it."""

    def __init__(self, place: Place, proxies: toxiproxy.Toxiproxy, folder: Path) -> None:
        self.place = place
        self.proxies = proxies
        self.folder = folder
        self.supervisor = Supervisor(place)
        self._programs = {program.name: program for _, program in programs_of(components("full", place.env), place)}
        self._ports: dict[str, int] = {}  # of proxies, by the name of the link

    # ---- processes ----

    def pid(self, name: str) -> int:
        """Of the program's first process. Raises RuntimeFailure where it does not run."""
        pid = self.supervisor.states()[name].pid
        if not pid:
            raise RuntimeFailure(f"{name} does not run")
        return pid

    def processes(self, name: str) -> list[psutil.Process]:
        """The program's."""
        return family(self.pid(name))

    def signal(self, name: str, number: signal.Signals) -> None:
        """To all processes of a program (PostgreSQL answers from many)."""
        for process in self.processes(name):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def ready(self, name: str) -> bool:
        """Whether the program says that it can work."""
        return self.supervisor.states()[name].state == "RUNNING" and self._programs[name].ready()

    def await_ready(self, name: str) -> None:
        """Raises RuntimeFailure where it is not within some minutes."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self.ready(name):
            if time.monotonic() > deadline:
                raise RuntimeFailure(f"{name} is not ready after {_READY_SECONDS} s: see its log in {self.place.state / 'log'}")
            time.sleep(0.1)

    def restart(self, name: str, change: Callable[[str], str]) -> None:
        """Start a program with its script, as `make up` wrote it, changed."""
        original = self._kept(name)
        self.supervisor.stop(name)
        store_script(self.place, name, change(original))
        self.supervisor.start(name)

    def _kept(self, name: str) -> str:
        """The script as `make up` wrote it; kept beside until it is in its place again, even if the verification is killed."""
        kept = self._scripts / f"{name}.sh"
        if not kept.is_file():
            script = stored_script(self.place, name)
            if script is None:
                raise RuntimeFailure(f"{name} was never started: is the platform the full one?")
            kept.parent.mkdir(mode=0o700, exist_ok=True)
            kept.write_text(script)
        return kept.read_text()

    @property
    def _scripts(self) -> Path:
        return self.folder / "scripts"

    def member(self, service: str, instance: str, log: Path) -> subprocess.Popen[bytes]:
        """One more copy of a consumer, under a name of its own."""
        prefix = service.upper().replace("-", "_")
        script = stored_script(self.place, service) or ""
        port = str(free_port(self.place.env["BIND_HOST"]))
        script = with_settings(script, {f"{prefix}_INSTANCE": instance, f"{prefix}_METRICS_PORT": port})
        with log.open("ab") as output:
            command = ["/bin/sh", "-c", script]
            return subprocess.Popen(command, stdout=output, stderr=output, env=clean_environment(), start_new_session=True)

    # ---- addresses ----

    def address(self, link: Link) -> str:
        """host:port of a link's proxy."""
        return f"{self.place.env['BIND_HOST']}:{self._ports[link.name]}"

    def settings_of(self, client: str) -> dict[str, str]:
        """The client's settings, with the addresses of its proxies."""
        changed = dict(TUNING.get(client, {}))
        for link in LINKS:
            if link.client == client and link.setting:
                old = self.place.env[link.setting]
                changed[link.setting] = old.replace(_address_in(old), self.address(link))
        return changed

    def curation(self) -> tuple[list[str], dict[str, str]]:
        """Command and environment of one curation, as Airflow's task starts it."""
        place = self.place
        tools = task_environment(place)
        return [f"{tools['SPARK_VENV']}/bin/python", "-m", "dags.curation.main"], {**clean_environment(), **place.env, **tools}

    # ---- making ready, and undoing it ----

    def put_proxies(self) -> None:
        """Between all that are in LINKS. Kafka and the services are restarted."""
        host = self.place.env["BIND_HOST"]
        listeners: dict[str, tuple[int, int]] = {}  # listener -> (Kafka's port, the proxy's port)
        for link in LINKS:
            self._ports[link.name] = free_port(host)
            upstream = int(self.place.env[link.port])
            if link.server == "kafka":
                upstream = free_port(host)
                listeners[link.client.upper().replace("-", "")] = (upstream, self._ports[link.name])
            self.proxies.add(link.name, self.address(link), f"{host}:{upstream}")
        properties = self.place.conf("kafka") / "server.properties"
        properties.write_text(with_listeners(properties.read_text(), host, listeners))
        self.restart_all({"kafka": lambda script: script, **{name: self.rewired(name) for name in SERVICES}})

    def rewired(self, name: str) -> Callable[[str], str]:
        """How the script of a program is changed so that it goes through its proxies."""
        return lambda script: with_settings(script, self.settings_of(name))

    def restart_all(self, changes: Mapping[str, Callable[[str], str]]) -> None:
        """Restart programs at once, and wait until all are ready."""

        def restarted(name: str) -> None:
            self.restart(name, changes[name])
            self.await_ready(name)

        with ThreadPoolExecutor(max_workers=len(changes)) as pool:
            list(pool.map(restarted, changes))

    def restore(self) -> None:
        """Everything as `make up` made it."""
        Kafka().configure(self.place)
        names = [path.stem for path in self._scripts.glob("*.sh")]
        if names:
            self.restart_all(dict.fromkeys(names, lambda script: script))
        shutil.rmtree(self._scripts, ignore_errors=True)


def with_settings(script: str, changes: Mapping[str, str]) -> str:
    """A program's script with other values for some settings. Raises ValueError where one is not in it."""
    for name, value in changes.items():
        line = f"export {name}={shlex.quote(value)}"
        # A value may go over several lines, but none of ours does.
        script, found = re.subn(rf"^export {name}=.*$", lambda _, line=line: line, script, flags=re.MULTILINE)  # type: ignore[misc]
        if not found:
            raise ValueError(f"the script has no setting {name}")
    return script


def with_listeners(properties: str, host: str, listeners: Mapping[str, tuple[int, int]]) -> str:
    """Kafka's server.properties with more listeners: name -> (the port that Kafka has, the port that it tells clients of)."""
    lines = []
    for line in properties.splitlines():
        key, _, value = line.partition("=")
        if key == "listeners":
            value = ",".join([value, *(f"{name}://{host}:{own}" for name, (own, _) in listeners.items())])
        elif key == "advertised.listeners":
            value = ",".join([value, *(f"{name}://{host}:{told}" for name, (_, told) in listeners.items())])
        lines.append(f"{key}={value}")
    protocols = ",".join(f"{name}:PLAINTEXT" for name in ("PLAINTEXT", "CONTROLLER", *listeners))
    lines += [f"listener.security.protocol.map={protocols}", "inter.broker.listener.name=PLAINTEXT"]
    return "\n".join(lines) + "\n"


def _address_in(value: str) -> str:
    return urlsplit(value).netloc.rpartition("@")[2] if "://" in value else value


# ---- MinIO's disk ----


class SmallDisk:
    """A disk in a file, on which MinIO keeps its data for the time of a verification. Needs root, or sudo without a password."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._data = site.place.data("minio")
        self._image = site.place.state / "run" / "minio.img"
        self._mounted = False

    def put(self) -> None:
        """Move the data there. Raises RuntimeFailure."""
        if os.path.ismount(self._data):  # of a verification that was killed: the lake's data are on it
            self._mounted = True
            self.empty()
            return
        with self._image.open("wb") as file:
            file.truncate(_DISK_BYTES)
        run(["mkfs.ext4", "-q", "-m", "0", str(self._image)], "making a disk for MinIO")
        self._site.supervisor.stop("minio")
        before = self._beside()
        self._data.rename(before)
        self._data.mkdir()
        run(_root("mount", "-o", "loop", str(self._image), str(self._data)), "mounting a disk for MinIO")
        self._mounted = True
        run(_root("chown", str(os.geteuid()), str(self._data)), "taking the disk for MinIO")
        shutil.rmtree(self._data / "lost+found")
        run(["cp", "-a", f"{before}/.", str(self._data)], "copying MinIO's data")
        self._start()

    def fill(self) -> None:
        """Leave no room at all."""
        with self._ballast.open("wb") as file:
            end = 0
            for piece in (256_000_000, 16_000_000, 1_000_000, 4096):
                with contextlib.suppress(OSError):  # no room for another piece of this size
                    while True:
                        os.posix_fallocate(file.fileno(), end, piece)
                        end += piece

    def empty(self) -> None:
        """The room is there again."""
        self._ballast.unlink(missing_ok=True)

    def take_away(self) -> None:
        """Move the data back."""
        if not self._mounted:
            return
        self._site.supervisor.stop("minio")
        before = self._beside()
        shutil.rmtree(before)
        self.empty()
        run(["cp", "-a", f"{self._data}/.", str(before)], "copying MinIO's data")
        self._unmount()
        shutil.rmtree(self._data)
        before.rename(self._data)
        self._start()

    def _unmount(self) -> None:
        run(_root("umount", str(self._data)), "unmounting MinIO's disk")
        self._mounted = False
        self._image.unlink(missing_ok=True)

    def _start(self) -> None:
        self._site.supervisor.start("minio")
        self._site.await_ready("minio")

    def _beside(self) -> Path:
        return self._data.with_name("minio.kept")

    @property
    def _ballast(self) -> Path:
        return self._data / "ballast"


def forget_disk(place: Place) -> None:
    """Unmount what a verification that was killed left, before all data are removed. MinIO must not run."""
    data = place.data("minio")
    if os.path.ismount(data):
        run(_root("umount", str(data)), "unmounting MinIO's disk")
        before = data.with_name("minio.kept")
        if before.exists():
            data.rmdir()
            before.rename(data)


def _root(*command: str) -> list[str]:
    return list(command) if os.geteuid() == 0 else ["sudo", "-n", *command]


@contextmanager
def prepared(place: Place, folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Site, SmallDisk]]:
    """A site that can be harmed. Everything is put back with the context. `say` is told of progress."""
    with alone(folder / ".lock"), toxiproxy.running(place, folder / "toxiproxy.log") as proxies:
        site = Site(place, proxies, folder)
        disk = SmallDisk(site)
        try:
            say("Putting proxies between all that talk, and MinIO on a disk of its own")
            Kafka().configure(place)
            disk.put()
            site.put_proxies()
            yield site, disk
        finally:
            say("Putting everything back")
            disk.take_away()
            site.restore()


def end_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Whatever of these still runs, with all that came of it."""
    for process in processes:
        if process.poll() is None:
            end(family(process.pid))
        process.wait()
