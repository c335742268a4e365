"""`docker compose config` for every profile and override, where there is a `docker compose`: `python -m tests.compose.config`.

Without one the rest of what can be said of the files is in tests/unit/test_compose.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from runtime import envfile
from runtime.errors import RuntimeFailure
from tests.compose.engine import plugin

ROOT = Path(__file__).parent.parent.parent
PROFILES = ("core", "full", "online", "scoring", "tools", "observability", "cli")
BUILT = ROOT / ".runtime" / "compose" / "docker-compose" / "docker-compose"


def check_all(env_file: Path) -> int:
    """How many were checked. Raises RuntimeFailure for the first that is refused."""
    base = _compose()
    overrides: list[list[Path]] = [[], *([path] for path in sorted((ROOT / "docker").glob("compose.*.yml")))]
    checked = 0
    for files in overrides:
        for profile in PROFILES:
            named = ["--file", str(ROOT / "docker-compose.yml"), *(part for file in files for part in ("--file", str(file)))]
            command = [*base, "--env-file", str(env_file), *named, "--profile", profile, "config", "--quiet"]
            env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "HEADRACE_ENV_FILE": str(env_file)}
            done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeFailure(f"{[file.name for file in files]} with the profile {profile}: {done.stderr.strip()[-600:]}")
            checked += 1
    return checked


def _compose() -> list[str]:
    """The command. Raises LookupError where there is none."""
    if BUILT.is_file():
        return [str(BUILT)]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    raise LookupError("there is no `docker compose` here: `make compose-tool` builds it from its Go module")


def main() -> int:
    """Check with settings made for this alone; without `docker compose` say that it was not done. (With CI=true it is built, and done.)"""
    with tempfile.TemporaryDirectory() as folder:
        env_file = Path(folder) / ".env"
        envfile.write_privately(env_file, envfile.with_secrets((ROOT / ".env.example").read_text()))
        try:
            if os.environ.get("CI") == "true":
                plugin(ROOT, "docker-compose")
            print(f"docker compose config: {check_all(env_file)} combinations of profile and override are in order")
        except LookupError as missing:
            print(f"docker compose config: NOT checked: {missing}")
        except RuntimeFailure as failure:
            print(f"headrace: docker compose config: {failure}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
