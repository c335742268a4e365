"""The checker on the running platform: every kind of fault once, and every event accounted for."""

import subprocess
import sys

import pytest

from tests.e2e.conftest import ROOT


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_through_every_kind_of_fault() -> None:
    command = [sys.executable, "-m", "verify", "--short", "--seed", "1", "--acks", "5000", "--rate", "150"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Nothing lost, nothing doubled." in done.stdout
