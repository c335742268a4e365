"""What the tests of containers run, and how they wait."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from runtime.errors import RuntimeFailure

ROOT = Path(__file__).parent.parent.parent


def compose(*arguments: str) -> list[str]:
    """A command line of `docker compose`."""
    return ["docker", "compose", "--progress", "quiet", *arguments]


def in_container(*arguments: str, environment: str = "") -> list[str]:
    """A command line of `headrace`, in a container."""
    more = ["--env", environment] if environment else []
    return ["docker", "compose", "run", "--rm", "--no-TTY", "--quiet-pull", *more, "cli", *arguments]


def step(what: str, command: list[str]) -> None:
    """Run it, with its output on ours. Raises RuntimeFailure, with the containers' states and last words, where it fails."""
    print(f"{what}: {' '.join(command[:6])}", flush=True)
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
        states = asked("docker", "compose", "ps", "--all", "--format", "{{.Service}}: {{.Status}}")
        logs = asked("docker", "compose", "logs", "--tail", "15", "--no-color")
        raise RuntimeFailure(f"{what}: failed. The containers are\n{states}\nand their logs end with\n{logs[-12_000:]}")


def asked(*command: str) -> str:
    """What it prints."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def until(done: Callable[[], bool], what: str, within: float = 600) -> None:
    """Ask each second. Raises RuntimeFailure where it is not so within so many seconds."""
    deadline = time.monotonic() + within
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeFailure(f"not within {within} s: {what}")
        time.sleep(1)
