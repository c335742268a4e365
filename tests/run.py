"""`make test`: a platform of its own beside the user's (other ports, data in .runtime/test), every test on it, and its end.

KEEP=1 leaves it running, so that single tests can be repeated with .venv/bin/pytest. Arguments go to pytest.

The tests go in two processes (which test goes in which is in conftest.py).
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from runtime.errors import RuntimeFailure
from runtime.platform import place_at
from runtime.preflight import ensure_packages
from verify import plan
from verify.site import forget_disk

ROOT = Path(__file__).parent.parent
ENV_FILE = ".runtime/test/.env"
STATE_DIR = ".runtime/test/state"
SCHEMAS_DIR = ".runtime/test/schemas"  # a copy: tests add event types, and so does the checker
PORT_SHIFT = "2000"
# Tests curate by hand, and need not wait for a run on schedule; nor for a commit of a loader as long as in everyday use. Of the replay some
# days are enough: each curation of a test has what it sent in the meantime to do, too.
SETTINGS = (f"SCHEMAS_DIR={SCHEMAS_DIR}", "CURATION_SCHEDULE=", "BATCH_LOADER_MAX_AGE_SECONDS=2", "CDNOW_REPLAY_EVENTS=2000")
PROCESSES = "2"
PACKAGES = ("chromium", "curl", "fonts-dejavu-core")


def main() -> int:
    """Exit code of the tests, or of the platform's start where that failed."""
    env = {**os.environ, "HEADRACE_ENV_FILE": ENV_FILE}

    def run(*command: str) -> int:
        return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, check=False).returncode

    try:
        ensure_packages(PACKAGES, print)
    except RuntimeFailure as failure:
        sys.exit(f"headrace: {failure}")
    keep = os.environ.get("KEEP") == "1"
    if (ROOT / ENV_FILE).is_file():
        run("runtime", "down")
        forget_disk(place_at(ROOT / ENV_FILE))
        run("runtime", "clean", "--yes")
        (ROOT / ENV_FILE).unlink()
    shutil.rmtree(ROOT / STATE_DIR, ignore_errors=True)  # of a platform whose settings are gone: nobody knows its passwords
    plan.write(ROOT / "schemas", ROOT / SCHEMAS_DIR)
    status = run("runtime", "second", "--state-dir", STATE_DIR, "--shift", PORT_SHIFT, *SETTINGS) or run("runtime", "up")
    try:
        named = ["--verbose"] if os.environ.get("CI") else []  # what runs and what failed is in the log, even where that is cut off
        return status or run("pytest", "-n", PROCESSES, *named, *sys.argv[1:])
    finally:
        if keep:
            print(f"The platform of the tests is still running: HEADRACE_ENV_FILE={ENV_FILE} make down")
        else:
            run("runtime", "down")
            print(f"Logs of its processes: {STATE_DIR}/log")


if __name__ == "__main__":
    sys.exit(main())
