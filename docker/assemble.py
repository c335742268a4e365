"""Makes an image's contents by docker/services.toml: of all packages those that the service needs, its code, and what starts and checks it.

Runs while an image is built: `python docker/assemble.py SERVICE OUT` in the checkout, by the Python of the environment that is pruned. All
packages were checked against the hashes of requirements/services.txt before; nothing is fetched here.
"""

import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(wanted: Iterable[str], there: dict[str, Distribution]) -> set[str]:
    """Canonical names of `wanted` and of all that they need. Raises KeyError for one that is not there."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        found.add(name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in there[name].requires or []:
                more = Requirement(text)
                if more.marker is None or more.marker.evaluate({"extra": extra}):
                    queue.append(more)
    return found


def main(service: str, out: Path) -> None:
    """Prune the environment and fill `out`."""
    what: dict[str, Any] = tomllib.loads(Path("docker/services.toml").read_text())[service]
    there: dict[str, Distribution] = {canonicalize_name(each.name): each for each in distributions()}
    if what["packages"] != ["*"]:
        keep = needed(what["packages"], there)
        for name, distribution in there.items():
            if name not in keep:
                _remove(distribution)
    out.mkdir(parents=True)
    for folder in what["code"]:
        shutil.copytree(folder, out / folder, ignore=shutil.ignore_patterns("__pycache__", "native"))
    if what.get("data"):
        shutil.copytree("data", out / "data")
    shutil.copyfile("docker/healthy.py", out / "healthy.py")
    _script(out / "run", ["python", *what["run"]], ' "$@"')
    _script(out / "healthy", ["python", "/app/healthy.py", *what["healthy"]] if "healthy" in what else ["true"])


def _remove(distribution: Distribution) -> None:
    for file in distribution.files or []:
        path = Path(str(distribution.locate_file(file)))
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder.name == "site-packages" or not folder.is_dir() or any(each.name != "__pycache__" for each in folder.iterdir()):
                break
            shutil.rmtree(folder)


def _script(path: Path, command: list[str], more: str = "") -> None:
    path.write_text(f"#!/bin/sh\nexec {shlex.join(command)}{more}\n")
    path.chmod(0o755)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
