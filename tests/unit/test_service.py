"""How the process of a consumer ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from verify.ports import free_port

ROOT = Path(__file__).parents[2]
UNKNOWN = """
import os, signal, sys
from headrace.progress import OutcomeUnknown
from headrace.service import ConsumerSettings, run

def build(stop):
    def serve():
        if sys.argv[2] == "told to stop":
            os.kill(os.getpid(), signal.SIGTERM)
            stop.wait()
        raise OutcomeUnknown("Kafka does not say")
    return serve

run("some-service", ConsumerSettings(kafka_bootstrap_servers="127.0.0.1:1", metrics_port=int(sys.argv[1]), group="g"), build)
"""


@pytest.mark.parametrize(("how", "code", "level"), [("told to stop", 0, "warning"), ("by itself", 1, "error")])
def test_a_transaction_of_which_nothing_is_known_is_an_error_only_for_who_was_to_go_on(how: str, code: int, level: str) -> None:
    """Told to stop while Kafka was away, the enricher ended with 0 or with 1, as the moment would have it."""
    command = [sys.executable, "-c", UNKNOWN, str(free_port()), how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, said["level"], said["why"]) == (code, level, "Kafka does not say"), done.stderr
