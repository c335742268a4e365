"""Virtual environments of the servers that are Python packages: one for each, from `requirements/<name>.txt`, with hashes."""

import sys
from collections.abc import Callable
from pathlib import Path

from runtime.component import Place
from runtime.fetching import built_as_a_whole, digest_of, run


def make_venv(place: Place, name: str, say: Callable[[str], None]) -> Path:
    """The environment `name`, made anew where its requirements have changed. Raises RuntimeFailure where that fails."""
    requirements = place.root / "requirements" / f"{name}.txt"
    uv = str(place.root / ".runtime" / "bootstrap" / "bin" / "uv")
    home = place.venvs / name
    with built_as_a_whole(home, digest_of(requirements)) as fresh:
        if fresh is not None:
            say(f"installing {requirements.name}")
            base = str(place.root / ".venv" / "bin" / "python")
            # relocatable: the folder is renamed once it is whole
            run([uv, "venv", "--quiet", "--no-config", "--clear", "--relocatable", "--python", base, str(fresh)], f"making {home}")
            install = [uv, "pip", "install", "--quiet", "--no-config", "--python", str(fresh / "bin" / "python")]
            run([*install, "--no-deps", "--require-hashes", "--requirements", str(requirements)], f"installing {requirements.name}")
    return home


def site_packages(venv: Path) -> Path:
    """Where an environment keeps its packages."""
    return venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"  # made with our own Python
