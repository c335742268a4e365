"""`python -m benchmarks.lake`: a million simulated events and the whole of CDNOW, from the producers to gold, on a platform of its own.

Everything goes the way that users' events go: over REST into the collector, through the enricher and both loaders, then one curation
(Spark) and one build of gold (dbt on Trino), as the DAG `curate` runs them. It ends with an error where an event is missing at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import psutil
from rich.console import Console

from benchmarks.figures import keep, show
from benchmarks.measured import measured
from benchmarks.startup import ENV_FILE, ROOT, STATE_DIR, own_platform, run
from dags.headrace_environments import dbt_paths
from dags.upkeep.main import cursor_of
from headrace.settings import use_env_file
from producers.cdnow.purchases import SOURCE as CDNOW
from producers.cdnow.purchases import read_purchases
from producers.client import Collector
from producers.client.settings import ProducerSettings
from producers.simulate.run import Tally, paced
from producers.simulate.run import run as send
from producers.simulate.visits import SOURCE as SIMULATED
from producers.simulate.visits import sessions
from runtime import java, processes

_DATA = ROOT / ".runtime/data/cdnow/CDNOW_master.txt"
_CONNECTIONS, _BATCH, _BAD = 4, 500, 0.01
_SPARK, _DBT = (ROOT / ".runtime/venvs" / name for name in ("spark/bin/python", "dbt/bin/dbt"))


@contextmanager
def _platform(console: Console) -> Iterator[None]:
    """A platform whose lake nothing curates but us; its settings are the environment meanwhile."""
    with own_platform("CURATION_SCHEDULE=", "MAINTENANCE_SCHEDULE=", "QUALITY_REPORT_SCHEDULE=") as env:
        with console.status("Starting a platform"):
            run(["make", "--no-print-directory", "up"], ROOT, env)
        os.environ["HEADRACE_ENV_FILE"] = ENV_FILE
        use_env_file()
        yield


class _Memory(threading.Thread):
    """The most memory that all processes of the platform and of what we run had together, looked at every two seconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(2):
            ours = psutil.Process().children(recursive=True)
            self.most = max(self.most, processes.memory([*processes.of_platform(ROOT / STATE_DIR), *ours]))

    def end(self) -> float:
        """MB (10^6 bytes)."""
        self._ended.set()
        self.join()
        return self.most / 1e6


def _send(events: int, seed: int) -> Tally:
    settings = ProducerSettings.load()

    def connect() -> Collector:
        return Collector(settings.collector_url, settings.write_key.get_secret_value(), patience=120)

    subprocess.run([sys.executable, "-m", "producers.cdnow", "--speed", "max", "--restart"], cwd=ROOT, check=True, capture_output=True)
    tally = send(paced(islice(sessions(seed, _BAD), events), None, None, _BATCH), connect, _CONNECTIONS)
    if not tally.as_expected:
        raise SystemExit("headrace: the collector did not reply as expected")
    return tally


def _until(done: Callable[[], bool], within: float) -> None:
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"headrace: not all events were in the lake {within:.0f} s after the last was sent")
        time.sleep(1)


def _counts(cursor: Any, table: str) -> Mapping[str, int]:
    """Identities by source."""
    cursor.execute(f"SELECT source, count(DISTINCT id) FROM {table} WHERE source IN ('{CDNOW}', '{SIMULATED}') GROUP BY 1")
    return dict(cursor.fetchall())


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lake", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="simulated events")
    wanted = parser.parse_args()
    console = Console()
    figures: dict[str, float] = {}
    with _platform(console):
        memory = _Memory()
        memory.start()
        cursor = cursor_of(os.environ, "benchmark")
        purchases = len({purchase.id for purchase in read_purchases(_DATA)})
        began = time.monotonic()
        with console.status(f"Sending {purchases:,} purchases of CDNOW and {wanted.events:,} simulated events"):
            tally = _send(wanted.events, seed=7)
        figures["sent_seconds"] = round(time.monotonic() - began, 1)
        expected = {CDNOW: purchases, SIMULATED: tally.expected_accepted - sum(tally.later.values())}
        total = sum(expected.values())
        with console.status("Waiting until all are in the lake"):
            _until(lambda: _counts(cursor, "lake.bronze.events") == expected, 600)
        figures["in_bronze_seconds"] = round(time.monotonic() - began, 1)
        figures |= {"events": total, "in_bronze_per_s": round(total / figures["in_bronze_seconds"])}
        output = ROOT / os.environ["STATE_DIR"] / "data/dbt/benchmark"
        spark = {"JAVA17_HOME": str(java.home()), "SPARK_JARS": str(ROOT / ".runtime/servers/spark-jars")}
        for name, command, env in (
            ("silver", [str(_SPARK), "-m", "dags.curation.main"], spark),
            ("gold", [str(_DBT), "--quiet", "build"], dbt_paths(ROOT, output, output)),
        ):
            with console.status(f"Curating: {name}"):
                done = measured(command, {**os.environ, **env})
            figures |= {f"{name}_seconds": round(done.seconds, 1), f"{name}_per_s": round(total / done.seconds)}
            if name == "silver":  # dbt only asks; what Trino needs is in the platform's memory
                read = json.loads(done.out.splitlines()[-1])["read"]
                figures |= {"silver_read": read, "silver_processor_seconds": round(done.processor_seconds, 1)}
                figures |= {"silver_read_per_processor_s": round(read / done.processor_seconds), "silver_mb": round(done.mb)}
        if (found := _counts(cursor, "lake.silver.events")) != expected:
            raise SystemExit(f"headrace: silver has {found}, and was sent {expected}")
        figures["platform_and_curation_mb"] = round(memory.end())
    figures |= {"cores": os.cpu_count() or 0, "load_average": round(os.getloadavg()[1], 1)}
    keep("lake", figures)
    show(figures)


if __name__ == "__main__":
    main()
