"""How the replay tells of itself: a progress bar on a terminal, else a line in the log every few seconds."""

import sys
import time
from types import TracebackType
from typing import Protocol, Self

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY = 10.0  # seconds


class Report(Protocol):
    """A context in which the replay runs."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None: ...
    def moved(self, position: int, day: str) -> None:
        """So many purchases are sent; the last one was on `day`."""

    def said(self, message: str, **details: object) -> None:
        """Something happened that a person should know of."""


class Bar:
    """For a terminal."""

    def __init__(self, total: int, position: int) -> None:
        told, day_of = TextColumn("{task.description}"), TextColumn("{task.fields[day]}")
        self._progress = Progress(told, BarColumn(), MofNCompleteColumn(), day_of, TimeRemainingColumn(), console=Console(stderr=True))
        self._task = self._progress.add_task("CDNOW replay", total=total, completed=position, day="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._progress.stop()

    def moved(self, position: int, day: str) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=position, day=day)

    def said(self, message: str, **details: object) -> None:
        """A line above the bar."""
        self._progress.console.print(message, *(f"{name}={value}" for name, value in details.items()), markup=False, highlight=False)


class Log:
    """For everything else."""

    def __init__(self, total: int, position: int) -> None:
        self._total = total
        self._last = time.monotonic(), position
        self._log = structlog.get_logger()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        return None

    def moved(self, position: int, day: str) -> None:
        """A line, where it is time for one."""
        now = time.monotonic()
        since, before = self._last
        if now - since >= LOG_EVERY:
            rate = round((position - before) / (now - since), 1)
            self._log.info("replaying", sent=position, of=self._total, day=day, events_per_second=rate)
            self._last = now, position

    def said(self, message: str, **details: object) -> None:
        """A line."""
        self._log.info(message, **details)


def report(total: int, position: int) -> Report:
    """The one that fits where standard error goes to."""
    return Bar(total, position) if sys.stderr.isatty() else Log(total, position)
