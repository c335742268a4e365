"""The checker on a platform of its own, which it harms: every kind of fault once, and every event accounted for.

It goes with the tests of the platform although it touches nothing of that: restarts and curations take both cores, and so do theirs.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.supervisor import clean_environment

pytestmark = pytest.mark.usefixtures("platform")
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1500)
def test_nothing_is_lost_or_doubled_through_every_kind_of_fault() -> None:
    command = [sys.executable, "-m", "verify", "--short", "--seed", "1", "--acks", "5000", "--rate", "60"]
    env = clean_environment()  # with no settings it starts a platform, and ends it
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            said, _ = running.communicate(timeout=1400)
        finally:
            running.terminate()  # where it did not end: it puts everything back
    assert running.returncode == 0, said
    assert "Nothing lost, nothing doubled." in said
