"""Each problem before a start is one sentence that names the thing and the setting that changes it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import preflight
from runtime.component import Program
from runtime.errors import RuntimeFailure


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def program(**ports: str) -> Program:
    return Program(name="shop", command=["true"], ready=lambda: True, ports=ports)


def test_a_taken_port_names_its_holder_and_its_setting(taken: int, tmp_path: Path) -> None:
    env = {"BIND_HOST": "127.0.0.1", "SHOP_PORT": str(taken)}
    [problem] = preflight.port_problems(env, [program(http="SHOP_PORT")], tmp_path)
    assert problem.startswith(f"port {taken} for shop is taken by process {os.getpid()} (")
    assert problem.endswith("end that, or change SHOP_PORT in the .env file")


def test_a_port_of_our_own_platform_is_no_problem(taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "marked", lambda process, state: process.pid == os.getpid() and state == tmp_path)
    env = {"BIND_HOST": "127.0.0.1", "SHOP_PORT": str(taken)}
    assert preflight.port_problems(env, [program(http="SHOP_PORT")], tmp_path) == []


def test_a_free_port_is_no_problem(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    assert preflight.port_problems({"BIND_HOST": "127.0.0.1", "SHOP_PORT": str(free)}, [program(http="SHOP_PORT")], tmp_path) == []


def test_one_port_for_two_is_named_with_both_settings(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = str(probe.getsockname()[1])
    env = {"BIND_HOST": "127.0.0.1", "SHOP_PORT": free, "TRINO_PORT": free}
    problems = preflight.port_problems(env, [program(a="SHOP_PORT", b="TRINO_PORT")], tmp_path)
    assert problems == [f"port {free} is given to both SHOP_PORT and TRINO_PORT: change one of them in the .env file"]


@pytest.mark.parametrize("value", ["", "http", "0", "65536", "-1", "80 "])
def test_what_is_no_port_is_refused(value: str, tmp_path: Path) -> None:
    problems = preflight.port_problems({"BIND_HOST": "127.0.0.1", "SHOP_PORT": value}, [program(http="SHOP_PORT")], tmp_path)
    assert problems == [f"SHOP_PORT={value} is not a port: give it a number from 1 to 65535"]


def test_too_little_memory_says_how_much_and_what_needs_less() -> None:
    assert preflight.memory_problems("full", 7 * 1024**3) == []
    [problem] = preflight.memory_problems("full", 2 * 1024**3)
    assert (
        problem
        == "2.0 GB of memory is free, and the profile full needs 7.0 GB: end other programs, or start less with `make up PROFILE=core`"
    )
    [problem] = preflight.memory_problems("core", 1024**3)
    assert problem == "1.0 GB of memory is free, and the profile core needs 3.0 GB: end other programs"


def test_too_little_disk_says_where() -> None:
    assert preflight.disk_problems(Path("/data"), 5, 5) == []
    assert preflight.disk_problems(Path("/data"), 1024**3, 4 * 1024**3) == [
        "1.0 GB is free on the disk of /data, and 4.0 GB is needed: make room there"
    ]


def test_a_missing_package_without_root_is_the_one_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_installed", lambda name: name == "maven")
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(preflight, "_root_prefix", lambda: None)
    with pytest.raises(RuntimeFailure) as caught:
        preflight.ensure_packages(["openjdk-17-jdk-headless", "maven", "openjdk-17-jdk-headless"], print)
    assert str(caught.value) == "missing: openjdk-17-jdk-headless: install them with: sudo apt-get install -y openjdk-17-jdk-headless"


def test_no_problems_are_no_failure() -> None:
    preflight.refuse([])
    with pytest.raises(RuntimeFailure, match="first\nsecond"):
        preflight.refuse(["first", "second"])
