"""Showing what happens in several places at once: live lines on a terminal, plain lines elsewhere."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

Report = Callable[[str, str], None]
_FINAL = ("ready", "failed", "done")


@contextmanager
def reporting(console: Console) -> Iterator[Report]:
    """Give a function `report(name, what)` that any thread may call."""
    if console.is_terminal:
        texts = (TextColumn("{task.description:<22}"), TextColumn("{task.fields[what]}"))
        with Progress(SpinnerColumn(finished_text="·"), *texts, TimeElapsedColumn(), console=console) as progress:
            yield _live(progress)
    else:
        yield _plain(console)


def _live(progress: Progress) -> Report:
    lines: dict[str, TaskID] = {}
    lock = threading.Lock()

    def report(name: str, what: str) -> None:
        with lock:
            if name not in lines:
                lines[name] = progress.add_task(name, what="", total=1)
        progress.update(lines[name], what=what, completed=int(what in _FINAL))

    return report


def _plain(console: Console) -> Report:
    """A line for each new thing; one whose numbers alone moved is none."""
    told: dict[str, str] = {}

    def report(name: str, what: str) -> None:
        kind = re.sub(r"\d+", "", what)
        if told.get(name) != kind:
            told[name] = kind
            console.print(f"{name}: {what}", markup=False)

    return report
