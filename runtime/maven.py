"""Jars from Maven Central through Debian's `maven` client, checked against committed SHA-256 sums.

A folder `runtime/maven/<server>/` holds `pom.xml` (what we want, with pinned versions) and `sha256.txt` (every file that comes of it, in
the form of `sha256sum`). Which repository the client asks is the client's own matter (its settings.xml), so mirrors and proxies work.
"""

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from runtime import java
from runtime.errors import RuntimeFailure

Say = Callable[[str], None]
_LOCK = "sha256.txt"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_ATTEMPTS = 3


def fetch_jars(pom_folder: Path, destination: Path, say: Say) -> None:
    """Bring every file of `pom_folder`'s lock into `destination` (made anew as a whole), or do nothing where they are there already.

    A download that breaks is tried again and goes on where it stopped; a file whose sum differs is thrown away and fetched again.
    Raises RuntimeFailure, with the client's last lines or the file's name, when that does not help.
    """
    wanted = read_lock(pom_folder / _LOCK)
    stamp = destination / ".complete"
    if stamp.is_file() and stamp.read_text() == lock_digest(wanted):
        return
    cache = destination.parent / f".{destination.name}.m2"
    fresh = destination.parent / f".{destination.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    problems: list[str] = []
    for _ in range(_ATTEMPTS):
        _copy_dependencies(pom_folder, cache, fresh, say)
        problems = differences(wanted, sums(fresh))
        if not problems:
            break
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(cache, ignore_errors=True)
    else:
        raise RuntimeFailure(f"{pom_folder / _LOCK}: what Maven Central sent is not what is locked: {'; '.join(problems[:3])}")
    (fresh / stamp.name).write_text(lock_digest(wanted))
    shutil.rmtree(destination, ignore_errors=True)
    fresh.rename(destination)
    shutil.rmtree(cache, ignore_errors=True)


def write_lock(pom_folder: Path, scratch: Path, say: Say) -> None:
    """Fetch what `pom_folder`'s pom.xml asks for and write its sums into the lock: for whoever changes a version."""
    fresh = scratch / pom_folder.name
    shutil.rmtree(fresh, ignore_errors=True)
    _copy_dependencies(pom_folder, scratch / f".{pom_folder.name}.m2", fresh, say)
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums(fresh).items())]
    (pom_folder / _LOCK).write_text("".join(lines))
    shutil.rmtree(scratch, ignore_errors=True)


def read_lock(path: Path) -> dict[str, str]:
    """File name -> SHA-256 in hex. Raises RuntimeFailure where the lock is not there."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise RuntimeFailure(f"{path}: {error.strerror}: `make lock-jars` writes it") from None
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in lines if line.strip())}


def lock_digest(wanted: Mapping[str, str]) -> str:
    """One sum over a whole lock: what a finished folder carries as its stamp."""
    return hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()


def sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 in hex of the files right in `folder`."""
    found = {}
    for path in folder.iterdir():
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """What is wrong with `found`, one sentence a file; empty where it is exactly what is `wanted`."""
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    extra = [f"{name} is not in the lock" for name in sorted(found.keys() - wanted.keys())]
    both = sorted(wanted.keys() & found.keys())
    corrupt = [f"{name} has SHA-256 {found[name]}, not {wanted[name]}" for name in both if wanted[name] != found[name]]
    return missing + extra + corrupt


def _copy_dependencies(pom_folder: Path, cache: Path, target: Path, say: Say) -> None:
    """Run the client until it succeeds; what it has downloaded stays in `cache` between attempts."""
    target.mkdir(parents=True, exist_ok=True)
    log = target.parent / f".{target.name}.log"
    command = ["mvn", "-B", "-ntp", "-f", str(pom_folder / "pom.xml"), f"-Dmaven.repo.local={cache}", _COPY]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={target}"]
    environment = {**os.environ, "JAVA_HOME": str(java.home())}
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(2**attempt)
        with log.open("w") as output:
            client = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
            try:
                while client.poll() is None:
                    say(_progress(cache))
                    time.sleep(0.5)
            finally:
                client.terminate()
                client.wait()
        if client.returncode == 0:
            log.unlink()
            return
    errors = [line for line in log.read_text().splitlines() if "ERROR" in line]
    raise RuntimeFailure(f"fetching {pom_folder.name} from Maven Central failed: {(errors or ['no output'])[0]} (all of it: {log})")


def _progress(cache: Path) -> str:
    size = sum(_size(Path(folder, name)) for folder, _, names in os.walk(cache) for name in names)
    return f"fetching jars: {size // 1_000_000} MB"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # renamed while we looked
        return 0
