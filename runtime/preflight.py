"""What must hold before anything is fetched or started. Each problem is one sentence that names the thing and what changes it."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import psutil

from runtime.component import Env, Program
from runtime.errors import RuntimeFailure
from runtime.processes import marked

# Bytes that must be free. Idle needs are measured by `make bench-startup`; the rest is for work and for the page cache.
MEMORY = {"core": 3 * 1024**3, "full": 7 * 1024**3}
DISK_TO_FETCH = {"core": 4 * 1024**3, "full": 10 * 1024**3}
DISK_TO_RUN = 1 * 1024**3


def port_problems(env: Env, programs: Iterable[Program], state: Path) -> list[str]:
    """Ports that something else holds, or that two of our programs want. Those of processes of this platform are as they should be."""
    problems = []
    wanted: dict[str, str] = {}
    for program in programs:
        for setting in program.ports.values():
            port = env[setting]
            if not (port.isdigit() and 0 < int(port) < 65536):
                problems.append(f"{setting}={port} is not a port: give it a number from 1 to 65535")
                continue
            other = wanted.setdefault(port, setting)
            if other != setting:
                problems.append(f"port {port} is given to both {other} and {setting}: change one of them in the .env file")
            elif _taken(env["BIND_HOST"], int(port)):
                holder = _holder(int(port))
                if holder is None or not marked(holder, state):
                    by = f"process {holder.pid} ({_name(holder)})" if holder else "another process"
                    problems.append(f"port {port} for {program.name} is taken by {by}: end that, or change {setting} in the .env file")
    return problems


def _taken(host: str, port: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return True
    return False


def _holder(port: int) -> psutil.Process | None:
    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return psutil.Process(each.pid)
        return None
    except psutil.Error:
        return None


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:60] or process.name()
    except psutil.Error:
        return "unknown"


def memory_problems(profile: str, available: int) -> list[str]:
    """Whether `available` bytes are enough to start `profile`."""
    need = MEMORY[profile]
    if available >= need:
        return []
    hint = "end other programs" + (", or start less with `make up PROFILE=core`" if profile == "full" else "")
    return [f"{_gb(available)} of memory is free, and the profile {profile} needs {_gb(need)}: {hint}"]


def disk_problems(folder: Path, free: int, need: int) -> list[str]:
    """Whether `free` bytes are enough on the disk of `folder`."""
    if free >= need:
        return []
    return [f"{_gb(free)} is free on the disk of {folder}, and {_gb(need)} is needed: make room there"]


def _gb(count: int) -> str:
    return f"{count / 1024**3:.1f} GB"


def ensure_packages(wanted: Sequence[str], say: Callable[[str], None]) -> None:
    """Install the Debian packages that are missing, and say so. Raises RuntimeFailure with the one line to type where we may not."""
    missing = [name for name in dict.fromkeys(wanted) if not _installed(name)]
    if not missing:
        return
    line = f"apt-get install -y {' '.join(missing)}"
    if not shutil.which("apt-get"):
        raise RuntimeFailure(f"missing: {', '.join(missing)} (names of Debian packages), and there is no apt-get here: install them")
    prefix = _root_prefix()
    if prefix is None:
        raise RuntimeFailure(f"missing: {', '.join(missing)}: install them with: sudo {line}")
    say(f"Installing Debian packages: {', '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]  # a fresh machine often updates itself just then
    install = [*prefix, "apt-get", *wait, "install", "-y", "--no-install-recommends", *missing]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:  # most often the package lists are old or not there
        subprocess.run([*prefix, "apt-get", "update"], env=environment, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeFailure(f"`{line}` failed: {last}")


def _installed(package: str) -> bool:
    if not shutil.which("dpkg-query"):
        return False
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, text=True, check=False)
    return asked.stdout.endswith(" installed")


def _root_prefix() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0:
        return ["sudo", "-n"]
    return None


def refuse(problems: Sequence[str]) -> None:
    """Raises RuntimeFailure with all `problems`, where there are any."""
    if problems:
        raise RuntimeFailure("\n".join(problems))
