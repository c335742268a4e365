"""The tables that people see."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from rich import box
from rich.table import Table

from runtime import processes
from runtime.component import Place, Program
from runtime.remembered import Started
from runtime.supervisor import ProcessState, log_path

_COLOURS = {"RUNNING": "green", "STARTING": "yellow", "EXITED": "cyan", "STOPPED": "dim"}


def running(place: Place, programs: list[Program]) -> Table:
    """What runs, where to look and how to log in."""
    table = Table(title="Headrace is running", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("program", "where", "user / password"):
        table.add_column(column, overflow="fold")
    for program in programs:
        table.add_row(
            program.name,
            program.url or ", ".join(f"{what} {place.env[setting]}" for what, setting in program.ports.items()),
            program.login or "",
        )
    key = place.env["HEADRACE_WRITE_KEY"]
    table.caption = f"Write key for sending events: {key}" if key else "`bin/headrace keys make --source NAME` makes a write key"
    table.caption_justify = "left"
    return table


def status(place: Place, states: Mapping[str, ProcessState], started: Mapping[str, Started]) -> Table:
    """State, process, ports, memory, time since the start and log of each program."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True)
    rows, total = [], 0
    for name, state in states.items():
        used = processes.memory(processes.family(state.pid)) if state.pid else 0
        total += used
        up = _duration(time.time() - state.started_at) if state.pid else ""
        ports = ", ".join(f"{what} {port}" for what, port in started[name].ports.items()) if name in started else ""
        colour = _COLOURS.get(state.state, "red")
        pid, size = (str(state.pid), f"{used / 1e6:,.0f} MB") if state.pid else ("", "")
        rows.append((name, f"[{colour}]{state.state.lower()}[/]", pid, ports, size, up, _relative(log_path(place, name), place.root)))
    footers = {"program": "total", "memory": f"{total / 1e6:,.0f} MB"}
    for column in ("program", "state", "pid", "ports", "memory", "up", "log"):
        justify: Literal["left", "right"] = "right" if column in ("pid", "memory", "up") else "left"
        table.add_column(column, footer=footers.get(column, ""), justify=justify, overflow="fold", no_wrap=column == "program")
    for row in rows:
        table.add_row(*row)
    return table


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)
