"""The real supervisor with small programs of our own: order, restarts, failures, and nothing left over."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from runtime import processes
from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.starting import start_all
from runtime.supervisor import Supervisor, log_path

# Says that it is there, leaves a child in a session of its own, and waits.
_SERVER = """
import os, subprocess, sys, time
from pathlib import Path
subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(root=tmp_path, env={"STATE_DIR": "state", "BIND_HOST": "127.0.0.1", "VALUE": "1"})
    yield place
    Supervisor(place).shutdown()
    processes.end(processes.of_platform(place.state), within=2)


def server(place: Place, name: str, after: Sequence[str] = ()) -> Program:
    there = place.root / f"{name}.there"
    command = [sys.executable, "-c", _SERVER, str(there)]
    return Program(name=name, command=command, ready=there.is_file, after=after, ready_within=20, stop_within=5)


def start(place: Place, *programs: Program) -> list[str]:
    """Start them; what was reported, as "name: what"."""
    told: list[str] = []
    Supervisor(place).ensure(programs)
    start_all(place, programs, dict.fromkeys([program.name for program in programs], ""), lambda name, what: told.append(f"{name}: {what}"))
    return told


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False


def test_programs_start_after_what_they_wait_for_and_a_second_start_leaves_them(place: Place) -> None:
    programs = [server(place, "loader", after=["kafka"]), server(place, "kafka")]
    told = start(place, *programs)
    assert told.index("kafka: ready") < told.index("loader: starting")
    before = {name: state.pid for name, state in Supervisor(place).states().items()}
    assert start(place, *programs) == ["kafka: ready", "loader: ready"]
    assert {name: state.pid for name, state in Supervisor(place).states().items()} == before


def test_a_changed_setting_restarts(place: Place) -> None:
    start(place, server(place, "kafka"))
    before = Supervisor(place).states()["kafka"].pid
    changed = Place(root=place.root, env={**place.env, "VALUE": "2"})
    assert "kafka: its settings changed: stopping" in start(changed, server(place, "kafka"))
    assert Supervisor(place).states()["kafka"].pid != before


def test_a_program_that_is_new_or_gone_is_noticed(place: Place) -> None:
    start(place, server(place, "kafka"))
    start(place, server(place, "kafka"), server(place, "minio"))
    assert set(Supervisor(place).states()) == {"kafka", "minio"}
    start(place, server(place, "minio"))
    assert set(Supervisor(place).states()) == {"minio"}


def test_a_killed_program_is_started_again(place: Place) -> None:
    start(place, server(place, "kafka"))
    before = Supervisor(place).states()["kafka"].pid
    os.kill(before, signal.SIGKILL)
    assert eventually(lambda: Supervisor(place).states()["kafka"].pid not in (0, before))


def test_a_program_whose_work_is_done_stays_ended(place: Place) -> None:
    replay = Program(name="replay", command=["true"], ready=lambda: True, ends=True)
    start(place, replay)
    assert eventually(lambda: Supervisor(place).states()["replay"].state == "EXITED")
    assert Supervisor(place).states()["replay"].exit_code == 0


def test_a_program_that_keeps_ending_is_one_error_with_the_end_of_its_log(place: Place) -> None:
    broken = Program(name="kafka", command=["sh", "-c", "echo no such listener; exit 3"], ready=lambda: False, ready_within=60)
    waiting = server(place, "loader", after=["kafka"])
    with pytest.raises(RuntimeFailure) as caught:
        start(place, broken, waiting)
    message = str(caught.value)
    assert message.startswith(f"kafka keeps ending. Its log is {log_path(place, 'kafka')}; it ends with:\n")
    assert message.endswith("\n  no such listener")
    assert Supervisor(place).states()["loader"].state == "STOPPED", "what waits for it is not started"


def test_a_program_that_is_never_ready_says_so(place: Place) -> None:
    slow = Program(name="kafka", command=["sleep", "600"], ready=lambda: False, ready_within=1)
    with pytest.raises(RuntimeFailure, match="kafka is not ready after 1 s"):
        start(place, slow)


def test_a_failed_preparation_is_told_as_it_is(place: Place) -> None:
    def prepare() -> None:
        raise RuntimeFailure("the database is of a newer version")

    program = Program(name="superset", command=["sleep", "600"], ready=lambda: True, prepare=prepare)
    with pytest.raises(RuntimeFailure, match="the database is of a newer version"):
        start(place, program)
    assert Supervisor(place).states()["superset"].state == "STOPPED"


def test_nothing_is_left_not_even_what_left_its_group(place: Place) -> None:
    start(place, server(place, "kafka"))
    assert len(processes.of_platform(place.state)) == 3  # supervisor, program, its child
    Supervisor(place).shutdown()
    left = processes.of_platform(place.state)
    assert [process.name() for process in left] == ["sleep"]
    processes.end(left)
    assert processes.of_platform(place.state) == []
