"""`make bench-startup`: seconds until everything is ready, and memory when nobody sends anything but the gentle replay.

    python -m benchmarks.startup [--cold] [--profile core|full]

Warm means: fetched, and started once before. Cold means: `make up` in a fresh clone of the last commit, with empty package caches.
The measured platform has ports and data of its own, so a running one stays as it is (but takes its share of the processor).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runtime import envfile, processes

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "startup.json"
ENV_FILE, STATE_DIR, _PORT_SHIFT = ".runtime/bench/.env", ".runtime/bench/state", "4000"
_SETTLE_SECONDS = 45
# What `make up` promises on 2 cores.
PROMISED = {"warm_core_seconds": 25, "idle_core_mb": 2500, "warm_full_seconds": 90, "idle_full_mb": 6000, "cold_seconds": 600}


@contextmanager
def own_platform(*settings: str) -> Iterator[dict[str, str]]:
    """The environment for the commands of a platform of our own, with `settings` (NAME=VALUE), which is removed in the end."""
    environment = {**os.environ, "HEADRACE_ENV_FILE": ENV_FILE}
    run([sys.executable, "-m", "runtime", "second", "--state-dir", STATE_DIR, "--shift", _PORT_SHIFT, *settings], ROOT, environment)
    try:
        yield environment
    finally:
        run(["make", "--no-print-directory", "clean", "YES=1"], ROOT, environment)
        (ROOT / ENV_FILE).unlink(missing_ok=True)


def warm(profile: str) -> dict[str, int | float]:
    """Start `profile` for the second time, then let it settle and sum its memory (shared pages counted once)."""
    make = ("make", "--no-print-directory", f"PROFILE={profile}")
    with own_platform() as environment:
        run([*make, "up"], ROOT, environment)
        run([*make, "down"], ROOT, environment)
        seconds = run([*make, "up"], ROOT, environment)
        processor = processes.processor_seconds(processes.of_platform(ROOT / STATE_DIR))
        time.sleep(_SETTLE_SECONDS)
        memory = processes.memory(processes.of_platform(ROOT / STATE_DIR))
    return {
        f"warm_{profile}_seconds": round(seconds, 1),
        f"warm_{profile}_processor_seconds": round(processor, 1),
        f"idle_{profile}_mb": round(memory / 1e6),
    }


def cold() -> dict[str, int | float]:
    """`make up` in a fresh clone, with nothing in any cache of ours or of the package managers."""
    with tempfile.TemporaryDirectory(prefix="headrace-cold-") as folder:
        clone = Path(folder) / "headrace"
        run(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT, dict(os.environ))
        empty = {"UV_CACHE_DIR": f"{folder}/uv", "PIP_CACHE_DIR": f"{folder}/pip", "HEADRACE_ENV_FILE": ENV_FILE}
        environment = {**os.environ, **empty}
        example = (clone / ".env.example").read_text()
        envfile.write_privately(clone / ENV_FILE, envfile.beside(example, STATE_DIR, int(_PORT_SHIFT)))
        try:
            seconds = run(["make", "--no-print-directory", "up"], clone, environment)
        finally:
            run(["make", "--no-print-directory", "clean", "YES=1"], clone, environment)
    return {"cold_seconds": round(seconds, 1)}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Seconds that a command took. Ends this program with what it printed where it fails."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - began


def main() -> None:
    """Measure, write benchmarks/results/startup.json and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup")
    parser.add_argument("--cold", action="store_true", help="measure a start from nothing too (about ten minutes)")
    parser.add_argument("--profile", choices=["core", "full"], help="this profile alone")
    given = parser.parse_args()
    known = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for profile in [given.profile] if given.profile else ["core", "full"]:
        known |= warm(profile)
    if given.cold:
        known |= cold()
    known["cores"] = os.cpu_count()
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(known, indent=2) + "\n")
    table = Table("what", "measured", "promised", title="Start-up", title_justify="left")
    for name, promised in PROMISED.items():
        measured = known.get(name)
        colour = "green" if measured is not None and measured <= promised else "red"
        table.add_row(name, "not measured" if measured is None else f"[{colour}]{measured:g}[/]", str(promised))
    for name in ("warm_core_processor_seconds", "warm_full_processor_seconds"):  # does not depend on what else the machine does
        table.add_row(name, f"{known[name]:g}" if name in known else "not measured", "")
    Console().print(table)


if __name__ == "__main__":
    main()
