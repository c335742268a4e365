"""A program that runs to its end, and what it cost by the kernel's account: of it and of all its children."""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Done:
    """What it printed, seconds by the clock and of processors, and the most memory of one process of it, in MB (2^20 bytes)."""

    out: str
    seconds: float
    processor_seconds: float
    mb: float


def measured(command: Sequence[str], env: Mapping[str, str]) -> Done:
    """Run `command` in the project's folder. Ends this program with what it said where it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, cwd=_ROOT, env=env, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0), err.seek(0)
        said = out.read().decode()
        if process.returncode:
            raise SystemExit(f"headrace: `{' '.join(command)[:200]}` failed: {said[-2000:]}{err.read().decode()[-2000:]}")
        return Done(said, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
