"""The running platform, asked and disturbed as a person would."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from runtime.errors import RuntimeFailure
from runtime.platform import ROOT, env_path, place_at
from runtime.probes import http_ok
from runtime.servers.postgres import Postgres
from runtime.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("platform")


def runtime(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "runtime", *command], cwd=ROOT, capture_output=True, text=True, check=False)


def states() -> dict[str, int]:
    return {name: state.pid for name, state in Supervisor(place_at(env_path())).states().items()}


def test_status_shows_every_program_with_memory_and_log() -> None:
    done = runtime("status")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("kafka", "elasticsearch", "minio", "postgres", "collector", "enricher", "realtime-loader", "batch-loader"):
        [line] = [line for line in done.stdout.splitlines() if line.split()[:1] == [name]]
        assert "running" in line
        assert str(states()[name]) in line
        assert " MB" in line
        assert f"/log/{name}.log" in line


def test_a_second_up_leaves_all_as_it_is() -> None:
    before = states()
    done = runtime("up")
    assert done.returncode == 0, done.stdout + done.stderr
    after = states()
    ended = {name for name, pid in before.items() if pid == 0} | {"cdnow-replay"}  # the replay may end at any time
    assert {name: pid for name, pid in after.items() if name not in ended} == {
        name: pid for name, pid in before.items() if name not in ended
    }


def test_a_password_that_the_data_were_not_made_with_is_said_at_once() -> None:
    place = place_at(env_path())
    url = place.env["POSTGRES_URL"].replace(place.env["POSTGRES_PASSWORD"], "another")
    [program] = Postgres().programs(replace(place, env={**place.env, "POSTGRES_URL": url}))
    with pytest.raises(RuntimeFailure, match=r"refuses POSTGRES_PASSWORD: its data in \S+/data/postgres were made with another one"):
        program.ready()


def test_a_killed_service_comes_back() -> None:
    before = states()["shop"]
    os.kill(before, signal.SIGKILL)
    address = place_at(env_path()).url("SHOP_PORT") + "/"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (states()["shop"] in (0, before) or not http_ok(address)):
        time.sleep(0.2)
    assert states()["shop"] not in (0, before)
    assert http_ok(address)


def test_a_log_that_is_not_there_is_named() -> None:
    done = runtime("logs", "kafak")
    assert done.returncode == 1
    assert done.stderr.startswith("headrace: NAME=kafak: there is no such log; there are ")
    assert "kafka" in done.stderr
