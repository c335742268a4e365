"""Every kind of fault: how it is done to the real processes, how it ends, and which station it keeps from going on."""

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import httpx
import psutil
import psycopg2

from cli.airflow import run_dag
from headrace.dead_letter import Unavailable
from runtime.errors import RuntimeFailure
from runtime.processes import family
from verify.site import CONSUMERS, LINKS, Link, Site, SmallDisk, end_all
from verify.watch import ACKS, CURATED, ENRICHED, LAKE, SEARCH

PROCESSES: Mapping[str, str] = {  # program -> the station that it keeps from going on
    "kafka": ACKS,
    "collector": ACKS,
    "enricher": ENRICHED,
    "enrichment-api": ENRICHED,
    "realtime-loader": SEARCH,
    "elasticsearch": SEARCH,
    "batch-loader": LAKE,
    "minio": LAKE,
    "postgres": LAKE,
}
# What more than one station stands on. (A curation that is to be killed in its midst must get there.)
_TOUCHES: Mapping[str, frozenset[str]] = {
    "kafka": frozenset({ACKS, ENRICHED, SEARCH, LAKE}),
    "minio": frozenset({LAKE, CURATED}),
    "postgres": frozenset({LAKE, CURATED}),
}
_ANSWERS_LATE_MS = 1500
_ANSWERS_UNDER_WAY_SECONDS = 2.5
_FULL_SECONDS = 4
_CURATION_SECONDS = 900


class Fault(Protocol):
    """Something that goes wrong. `touches` are the stations that no other fault may touch at the same time."""

    station: str
    touches: frozenset[str]

    def begin(self) -> None:
        """Do it."""

    def end(self) -> None:
        """Undo it; returns once it is undone. Also called where `begin` raised."""


@dataclass
class Kill:
    """kill -9; the supervisor starts it again."""

    site: Site
    name: str
    station: str
    touches: frozenset[str]

    def begin(self) -> None:
        """The first process alone: what it leaves behind is part of it."""
        os.kill(self.site.pid(self.name), signal.SIGKILL)

    def end(self) -> None:
        """Wait until it works again."""
        time.sleep(0.3)
        self.site.await_ready(self.name)


@dataclass
class Stop:
    """SIGSTOP: it is there, and does nothing."""

    site: Site
    name: str
    station: str
    touches: frozenset[str]
    stopped: list[psutil.Process] = field(default_factory=list)

    def begin(self) -> None:
        """All its processes."""
        self.stopped = self.site.processes(self.name)
        for process in self.stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def end(self) -> None:
        """Let it go on."""
        for process in self.stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


@dataclass
class Cut:
    """No connection between two, and those there were broken."""

    site: Site
    link: Link
    station: str
    touches: frozenset[str]

    def begin(self) -> None:
        """Break it."""
        self.site.proxies.cut(self.link.name)

    def end(self) -> None:
        """Mend it."""
        self.site.proxies.join(self.link.name)


@dataclass
class Slow:
    """Everything between two comes late."""

    site: Site
    link: Link
    station: str
    touches: frozenset[str]
    milliseconds: int

    def begin(self) -> None:
        """In both directions."""
        self.site.proxies.delay(self.link.name, self.milliseconds, answers_only=False)

    def end(self) -> None:
        """At once again."""
        self.site.proxies.clear(self.link.name)


@dataclass
class Unanswered:
    """What is asked is done, and the answer is lost: answers come late, and the connection is cut while some are on their way.

    `applied` waits until something was applied whose answer is still on its way.
    """

    site: Site
    link: Link
    station: str
    touches: frozenset[str]
    applied: Callable[[], None]

    def begin(self) -> None:
        """Delay, wait, cut."""
        self.site.proxies.delay(self.link.name, _ANSWERS_LATE_MS, answers_only=True)
        self.applied()
        self.site.proxies.cut(self.link.name)

    def end(self) -> None:
        """As before."""
        self.site.proxies.clear(self.link.name)
        self.site.proxies.join(self.link.name)


@dataclass
class Member:
    """One more copy of a consumer comes, and goes: by SIGTERM or by SIGKILL."""

    site: Site
    service: str
    station: str
    touches: frozenset[str]
    kill: bool
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """It takes up some of the partitions."""
        instance = f"verify-{random.randrange(10**6)}"
        self.process = self.site.member(self.service, instance, self.site.folder / f"member-{self.service}.log")

    def end(self) -> None:
        """The others take them back."""
        if self.process is None:
            return
        if self.kill:
            self.process.kill()
        else:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class FullDisk:
    """MinIO's disk takes not a byte more."""

    disk: SmallDisk
    station: str = LAKE
    touches: frozenset[str] = _TOUCHES["minio"]

    def begin(self) -> None:
        """Fill it, for as long as it takes that commits of the batch loader meet it."""
        self.disk.fill()
        time.sleep(_FULL_SECONDS)

    def end(self) -> None:
        """Make room."""
        self.disk.empty()


@dataclass
class FullSearch:
    """Elasticsearch blocks writing as it does when its disk is nearly full: each item of a bulk request is answered 429."""

    site: Site
    station: str = SEARCH
    touches: frozenset[str] = frozenset({SEARCH})

    def begin(self) -> None:
        """Set the block that Elasticsearch itself sets."""
        self._block(True)

    def end(self) -> None:
        """Release it."""
        self._block(None)

    def _block(self, value: bool | None) -> None:
        address = self.site.place.url("ELASTICSEARCH_PORT")
        body = {"index.blocks.read_only_allow_delete": value}
        for index in ("events-*", "dead-letters-*"):
            httpx.put(f"{address}/{index}/_settings", json=body, timeout=30, trust_env=False).raise_for_status()


# ---- curation ----


@dataclass
class Curations:
    """`count` curations at once; `kill` ends the first one in the midst of its writing, and another has to mend what it left."""

    site: Site
    count: int
    kill: bool
    station: str = CURATED
    touches: frozenset[str] = frozenset({CURATED})
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self) -> None:
        """Start them, and kill."""
        await_commit(self.site, "events")  # so that there is something to write
        before = written_at(self.site)
        self.running = [self._start() for _ in range(self.count)]
        if self.kill:
            await_write(self.site, before, self.running[0].poll)
            for process in family(self.running[0].pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def end(self) -> None:
        """Wait for those that were not killed, or for one that mends. Raises RuntimeFailure where curation does not come through."""
        try:
            codes = [process.wait(_CURATION_SECONDS) for process in self.running]
            if self.kill or any(codes):
                curate(self.site)
        except subprocess.TimeoutExpired:
            raise RuntimeFailure(f"a curation was not done within {_CURATION_SECONDS} s") from None
        finally:
            end_all(self.running)

    def _start(self) -> subprocess.Popen[bytes]:
        command, environment = self.site.curation()
        with (self.site.folder / "curation.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.site.place.root, env=environment, stdout=log, stderr=log)


@dataclass
class AirflowTask:
    """The process of Airflow's task is killed in the midst of the writing; Airflow has to try again by itself."""

    site: Site
    station: str = CURATED
    touches: frozenset[str] = frozenset({CURATED})
    outcome: list[Exception | None] = field(default_factory=list)
    thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start the DAG, find the task, kill it."""
        await_commit(self.site, "events")
        before = written_at(self.site)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        driver = self._driver()
        await_write(self.site, before, lambda: None if driver.is_running() else 0)
        task = driver.parent()
        if task is None or not task.is_running():
            raise RuntimeFailure("Airflow's task had ended before it could be killed")
        task.kill()

    def end(self) -> None:
        """Wait for the success of the task, tried again. Raises RuntimeFailure."""
        if self.thread is not None:
            self.thread.join(_CURATION_SECONDS)
        if not self.outcome or self.outcome[0] is not None:
            raise RuntimeFailure(f"Airflow's task did not succeed: {self.outcome[0] if self.outcome else 'it did not end'}")

    def _run(self) -> None:
        try:
            with contextlib.suppress(httpx.HTTPError):  # it learns by a failing request that a fault broke its connection to PostgreSQL
                httpx.get(f"{self.site.place.url('AIRFLOW_PORT')}/api/v2/monitor/health", timeout=30, trust_env=False)
            run_dag(self.site.place.env, "curate", _CURATION_SECONDS, task="silver")
        except Unavailable as problem:
            self.outcome.append(problem)
        else:
            self.outcome.append(None)

    def _driver(self) -> psutil.Process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not self.outcome:
            for process in self.site.processes("airflow-scheduler"):
                with contextlib.suppress(psutil.Error):
                    command = process.cmdline()
                    if "dags.curation.main" in command and "python" in command[0]:
                        return process
            time.sleep(0.1)
        raise RuntimeFailure("Airflow started no curation")


def curate(site: Site, change: Callable[[str], str] | None = None) -> None:
    """One curation from the beginning to its end, its command changed by `change`. Raises RuntimeFailure."""
    command, environment = site.curation()
    if change:
        command = change(" ".join(command)).split(" ")
    done = subprocess.run(
        command, cwd=site.place.root, env=environment, capture_output=True, text=True, timeout=_CURATION_SECONDS, check=False
    )
    with (site.folder / "curation.log").open("a") as log:
        log.write(done.stdout + done.stderr)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise RuntimeFailure(f"a curation failed (log: {site.folder / 'curation.log'}): {' | '.join(last)[:500]}")


def catalog_says(site: Site, namespace: str, table: str) -> str | None:
    """Where the metadata of a table of the lake is now: another place after each commit."""
    with (
        contextlib.closing(psycopg2.connect(site.place.env["LAKE_CATALOG_URL"], connect_timeout=5)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT metadata_location FROM iceberg_tables WHERE table_namespace = %s AND table_name = %s", (namespace, table))
        row = cursor.fetchone()
        return None if row is None else str(row[0])


def written_at(site: Site) -> str | None:
    """The state of the table that a curation writes first."""
    with contextlib.suppress(psycopg2.Error):
        return catalog_says(site, "silver", "events")
    return None


def await_write(site: Site, before: str | None, ended: Callable[[], int | None]) -> None:
    """Until a curation has written its first table, and so has not written the others yet. Raises RuntimeFailure."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if ended() is not None:
            raise RuntimeFailure("the curation had ended before it could be killed")
        if (now := written_at(site)) is not None and now != before:
            return
        time.sleep(0.05)
    raise RuntimeFailure("the curation wrote nothing")


def await_commit(site: Site, table: str) -> None:
    """Until the batch loader has committed to a table of bronze: where answers are late, this one is still on its way."""
    deadline, before = time.monotonic() + 180, None
    while time.monotonic() < deadline:
        with contextlib.suppress(psycopg2.Error):
            now = catalog_says(site, "bronze", table)
            if before is not None and now != before:
                return
            before = now
        time.sleep(0.02)
    raise RuntimeFailure("the batch loader committed nothing")


# ---- all of them ----


def kinds(site: Site, disk: SmallDisk, rand: random.Random) -> dict[str, Callable[[], Fault]]:
    """Every kind of fault by name, as what makes one."""
    found: dict[str, Callable[[], Fault]] = {}
    for name, station in PROCESSES.items():
        touches = _TOUCHES.get(name, frozenset({station}))
        found[f"kill_{name}"] = partial(Kill, site, name, station, touches)
        found[f"stop_{name}"] = partial(Stop, site, name, station, touches)
    for link in LINKS:
        station = PROCESSES.get(link.client, ACKS)
        touches = frozenset({station})
        found[f"cut_{link.name}"] = partial(Cut, site, link, station, touches)
        found[f"slow_{link.name}"] = partial(Slow, site, link, station, touches, rand.randrange(200, 1000))
        # All that talk do it all the time; only of a commit to the lake the moment must be known.
        in_flight = partial(await_commit, site, "events") if link.server == "postgres" else partial(time.sleep, _ANSWERS_UNDER_WAY_SECONDS)
        found[f"unanswered_{link.name}"] = partial(Unanswered, site, link, station, touches, in_flight)
    for service in CONSUMERS:
        station = PROCESSES[service]
        found[f"member_{service}"] = lambda s=service, at=station: Member(site, s, at, frozenset({at}), rand.random() < 0.5)  # type: ignore[misc]
    found["full_disk_minio"] = partial(FullDisk, disk)
    found["full_disk_elasticsearch"] = partial(FullSearch, site)
    found["kill_airflow_task"] = partial(AirflowTask, site)
    found["kill_spark_driver"] = partial(Curations, site, 1, True)
    found["two_curations"] = partial(Curations, site, 2, False)
    return {name.replace("-", "_"): make for name, make in found.items()}
