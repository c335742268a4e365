"""What the supervisor is told, and that no value is lost on the way to a process."""

import configparser
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.component import Place, Program
from runtime.supervisor import MARK, clean_environment, configuration, run_folder, script

_VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def place(root: Path, **env: str) -> Place:
    return Place(root=root, env={"STATE_DIR": "state", "BIND_HOST": "127.0.0.1", **env})


def program(**more: object) -> Program:
    return Program(**{"name": "kafka", "command": ["true"], "ready": lambda: True, **more})  # type: ignore[arg-type]


def test_programs_are_started_by_hand_and_again_after_a_crash(tmp_path: Path) -> None:
    parsed = configparser.RawConfigParser()
    parsed.read_string(configuration(place(tmp_path), [program(stop_within=30, stop_signal="INT"), program(name="replay", ends=True)]))
    kafka, replay = parsed["program:kafka"], parsed["program:replay"]
    assert (kafka["autostart"], kafka["autorestart"], kafka["startsecs"]) == ("false", "true", "1")
    assert (kafka["stopsignal"], kafka["stopwaitsecs"], kafka["stopasgroup"], kafka["killasgroup"]) == ("INT", "30", "true", "true")
    assert (replay["autorestart"], replay["startsecs"]) == ("unexpected", "0")
    assert int(kafka["startretries"]) > 100_000, "an outage of a dependency must not leave a service stopped for good"
    assert kafka["stdout_logfile"] == str(tmp_path / "state" / "log" / "kafka.log")
    assert replay["stdout_logfile"] == str(tmp_path / "state" / "log" / "replay.log")


def test_a_percent_sign_in_a_path_is_escaped(tmp_path: Path) -> None:
    assert "100%%/state/log/kafka.log" in configuration(place(tmp_path / "100%"), [program()])


def test_the_socket_path_is_short_however_deep_the_checkout(tmp_path: Path) -> None:
    deep = place(tmp_path / ("long" * 40))
    assert len(os.fsencode(run_folder(deep) / "supervisor.sock")) < 107
    assert run_folder(deep) == run_folder(deep) != run_folder(place(tmp_path / ("much" * 40)))
    assert run_folder(place(Path("/x"))).parts[-2:] == ("state", "run") if os.access("/", os.W_OK) else True


@given(_VALUES, _VALUES)
def test_every_value_reaches_the_process_as_it_is(setting: str, argument: str) -> None:
    command = ["sh", "-c", 'printf "%s|%s" "$VALUE" "$1"', "sh", argument]
    text = script(place(Path("/"), VALUE=setting), program(command=command), "sum")
    done = subprocess.run(["/bin/sh", "-c", text], capture_output=True, check=True)
    assert done.stdout == os.fsencode(setting) + b"|" + os.fsencode(argument)


def test_a_script_says_all_that_a_restart_depends_on(tmp_path: Path) -> None:
    text = script(place(tmp_path, A="1"), program(environment={"B": "2"}, directory=Path("/opt")), "sum")
    assert text.splitlines()[0] == "# configuration sum"
    assert {"export A=1", "export B=2", f"export {MARK}={tmp_path / 'state'}"} <= set(text.splitlines())
    assert text.splitlines()[-1] == "cd /opt && exec true"


def test_settings_exported_in_the_callers_shell_do_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLECTOR_REST_PORT", "1")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    environment = clean_environment()
    assert "COLLECTOR_REST_PORT" not in environment
    assert environment["LC_ALL"] == "C.UTF-8"
