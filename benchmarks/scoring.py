"""Batch inference: rows a second and memory of `ml/scoring.py`, for a few rows and for many, with the churn example's model form.

Rows are made by Spark (random features, no lake to wait for); what is measured is the job's own way from there: Arrow batches to the
workers, ONNX, and a Parquet file of scores. Memory is that of all its processes at their largest, so bounded memory is a ratio near 1.
"""

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.figures import keep, show
from runtime import java
from runtime.component import Place
from runtime.servers.models import Models

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scoring", description="Batch inference: rows a second, and memory.")
    parser.add_argument("--few", type=int, default=500_000)
    parser.add_argument("--many", type=int, default=5_000_000)
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    place = Place(ROOT, {})
    Models().fetch(place, print)
    figures: dict[str, float] = {"cores": given.cores}
    for name, rows in (("few", given.few), ("many", given.many)):
        told, memory = _job(place, rows, given.cores)
        figures |= {
            f"{name}_rows": rows,
            f"{name}_rows_per_second": round(rows / told["seconds"]),
            f"{name}_memory_mb": round(memory / 1e6),
        }
    figures["memory_many_to_few"] = round(figures["many_memory_mb"] / figures["few_memory_mb"], 2)
    figures["rows_many_to_few"] = round(given.many / given.few, 2)
    show(figures)
    keep("scoring", figures)


def _job(place: Place, rows: int, cores: int) -> tuple[dict[str, float], int]:
    """What a job in the models' environment said, and the most bytes that it and its processes had at a time."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(place.venvs / "ml" / "bin" / "python"), "-m", "benchmarks.scoring_job", str(rows), str(cores), folder]
        env = {**os.environ, "JAVA17_HOME": str(java.home())}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        most = [0]
        watcher = threading.Thread(target=_watch, args=(process.pid, most))
        watcher.start()
        out, _ = process.communicate()
        watcher.join()
        if process.returncode:
            raise SystemExit(f"headrace: the job ended with {process.returncode}")
    told: dict[str, float] = json.loads(out.splitlines()[-1])
    return told, most[0]


def _watch(pid: int, most: list[int]) -> None:
    try:
        of = psutil.Process(pid)
        while of.is_running() and of.status() != psutil.STATUS_ZOMBIE:
            total = 0
            for each in (of, *of.children(recursive=True)):
                try:
                    total += each.memory_full_info().pss
                except psutil.Error:
                    continue
            most[0] = max(most[0], total)
            time.sleep(0.5)
    except psutil.Error:
        return


if __name__ == "__main__":
    main()
