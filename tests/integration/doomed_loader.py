"""The batch loader in a process that kills itself (SIGKILL) at one chosen instruction, and how to start many of them quickly.

The processes are forked from one that has imported everything, so that a life takes no longer than what it does.
"""

import inspect
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import FrameType
from typing import Any

_LIVES = multiprocessing.get_context("forkserver")
_LIVES.set_forkserver_preload(["tests.integration.consumer_process", "loaders.batch.main"])


@dataclass(frozen=True)
class Place:
    """Right before or after the `nth` call of a function, such as `pyiceberg.catalog.sql:SqlCatalog.commit_table`."""

    function: str
    after: bool
    nth: int = 1

    def set(self) -> None:
        """Let this process end there."""
        module, _, path = self.function.partition(":")
        *owners, name = path.split(".")
        owner: Any = import_module(module)
        for part in owners:
            owner = getattr(owner, part)
        real, calls = getattr(owner, name), itertools.count(1)

        def doomed(*arguments: Any, **named: Any) -> Any:
            last = next(calls) == self.nth
            if last and not self.after:
                _end()
            answer = real(*arguments, **named)
            if last:
                _end()
            return answer

        is_static = isinstance(inspect.getattr_static(owner, name), staticmethod)
        setattr(owner, name, staticmethod(doomed) if is_static else doomed)


@dataclass(frozen=True)
class Line:
    """After so many lines of Python since the loader began to make its second batch final; every line counts, PyIceberg's too."""

    number: int

    def set(self) -> None:
        """Let this process end there."""
        from loaders.batch.stage import LakeStage

        left = itertools.count(self.number, -1)

        def trace(_: FrameType, event: str, __: object) -> Any:
            if event == "line" and next(left) <= 0:
                _end()
            return trace

        _before_call(LakeStage, "deliver", 2, lambda: sys.settrace(trace))


def _before_call(owner: Any, name: str, nth: int, do: Callable[[], None]) -> None:
    real, calls = getattr(owner, name), itertools.count(1)

    def counted(*arguments: Any) -> Any:
        if next(calls) == nth:
            do()
        return real(*arguments)

    setattr(owner, name, counted)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _live(prefix: str, namespace: str, environment: Mapping[str, str], doom: Place | Line | None, log: str) -> None:
    with open(log, "a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
    os.environ.update(environment)
    if doom is not None:
        doom.set()
    from tests.integration.consumer_process import main

    main("batch-loader", prefix, namespace)


class Life:
    """One life of the loader; `seconds` is when it is killed from outside, if it has not ended by then."""

    def __init__(self, prefix: str, namespace: str, environment: Mapping[str, str], doom: Place | Line | None, log: str) -> None:
        self._process = _LIVES.Process(target=_live, args=(prefix, namespace, {**os.environ, **environment}, doom, log))
        self._process.start()

    def ended_within(self, seconds: float) -> bool:
        """Whether it came to its chosen end; it is dead in any case."""
        self._process.join(seconds)
        by_itself = self._process.exitcode is not None
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, f"it ended with {self._process.exitcode}, not by a kill"
        return by_itself

    def __enter__(self) -> "Life":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
