"""What each step leaves behind: a folder for each run, in it what steps were given, what they made, how long it took and what it cost.

    RUN/scenario.yaml   RUN/prepared/   RUN/units.json   RUN/units/UNIT/…   RUN/…/STEP.json

A step reads nothing but these files (and the registry), so it can be done again.
"""

import hashlib
import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ml.errors import NotKept
from ml.scenario import Scenario

_LIBRARIES = ("scikit-learn", "skl2onnx", "onnxruntime", "numpy", "pandas", "pyspark", "optuna", "ray", "mlflow-skinny")
_ROOT = Path(__file__).resolve().parent.parent


class Run:
    """A run's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.folder.name

    @property
    def prepared(self) -> Path:
        """The rows with features and labels (Parquet)."""
        return self.folder / "prepared"

    def unit(self, name: str) -> Path:
        """The folder of a unit. Raises NotKept where `prepare` has made no such unit."""
        if name not in self.units():
            raise NotKept(f"{self.folder}: no unit {name}; there are {', '.join(self.units())}")
        return self.folder / "units" / name

    def scenario(self) -> Scenario:
        """The scenario as it was when the run began. Raises NotKept, BadScenario."""
        path = self.folder / "scenario.yaml"
        if not path.is_file():
            raise NotKept(f"{self.folder}: there is no run: begin with `python -m ml prepare --scenario NAME --run {self.folder}`")
        return Scenario.read(path)

    def units(self) -> dict[str, tuple[str, ...]]:
        """The units with their values. Raises NotKept."""
        return {name: tuple(values) for name, values in read_json(self.folder / "units.json").items()}


def read_json(path: Path) -> Any:
    """What an earlier step left. Raises NotKept."""
    try:
        return json.loads(path.read_text())
    except OSError:
        raise NotKept(f"{path}: is missing: an earlier step makes it (prepare, train, judge, register)") from None


def write_json(path: Path, value: Any) -> None:
    """As a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(value, indent=2, default=str) + "\n")
    fresh.replace(path)


@contextmanager
def step(folder: Path, name: str, inputs: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Record a step in `folder`/`name`.json: its inputs with their sums, its figures (what the block puts in), time, processor seconds
    (of this process and those that it started), most memory, code and libraries. A step that failed leaves no record."""
    record = folder / f"{name}.json"
    record.unlink(missing_ok=True)
    began, clock, used = datetime.now(UTC), time.perf_counter(), _processor_seconds()
    figures: dict[str, Any] = {}
    given = {str(path): sum_of(path) for path in inputs}
    yield figures
    write_json(
        record,
        {
            "step": name,
            "began_at": began,
            "seconds": round(time.perf_counter() - clock, 2),
            "processor_seconds": round(_processor_seconds() - used, 2),
            "most_memory_mb": round(_memory() / 1024),
            "inputs": given,
            "code": code_version(),
            "libraries": {library: version(library) for library in _LIBRARIES},
            **figures,
        },
    )


def sum_of(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder by name."""
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if each.is_file():
            with each.open("rb") as file:
                total.update(each.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def code_version(root: Path = _ROOT) -> str:
    """The commit of the checkout, `+` where files differ from it; else the sum of the package's own files."""
    try:
        asked = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"files:{sum_of(root / 'ml')[:12]}"


def threads(count: int) -> None:
    """Let libraries of this process use so many threads: to be said before they are imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LOKY_MAX_CPU_COUNT"):
        os.environ[name] = str(count)


def _processor_seconds() -> float:
    own, children = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _memory() -> int:
    """Kilobytes, of the largest of the process and its ended children."""
    return max(resource.getrusage(of).ru_maxrss for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def shown(figures: Mapping[str, Any]) -> str:
    """One line of JSON."""
    return json.dumps(figures, default=str)
