"""One consumer as a process of its own, on the topics (and tables) of one test: `consumer_process.py SERVICE PREFIX NAMESPACE`.

With TEST_POISON="WHERE HOW", an event with the word "lethal" ends the process: in `parse` or `deliver`, by an exception or a signal.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

_ENDS: dict[str, Callable[[], object]] = {
    "exception": lambda: 1 // 0,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "exit": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),  # as the kernel does where memory is out
}


def _lethal(message: Any) -> bool:
    return b"lethal" in (message.value() or b"") and "dead-letter" not in message.topic()


def _holds_lethal(message: Any, value: Any) -> bool:
    """The batch loader's items are rows of several messages, of which only the last is kept."""
    if hasattr(value, "column_names"):
        return "enriched_at" in value.schema.names and "lethal" in value.column("id").to_pylist()
    return _lethal(message)


class Deadly:
    """A stage that a message can end."""

    def __init__(self, stage: Any, where: str, end: Callable[[], object]) -> None:
        self._stage, self._where, self._end = stage, where, end

    def parse(self, message: Any) -> object:
        """As the stage does, or the end."""
        if self._where == "parse" and _lethal(message):
            self._end()
        return self._stage.parse(message)

    def deliver(self, items: Sequence[tuple[Any, Any]]) -> object:
        """As the stage does, or the end."""
        if self._where == "deliver" and any(_holds_lethal(message, value) for message, value in items):
            self._end()
        return self._stage.deliver(items)


def _make_deadly(where: str, how: str) -> None:
    from headrace.runner import Runner

    init: Any = Runner.__init__

    def deadly(self: Any, *, stage: Any, **rest: Any) -> None:
        init(self, stage=Deadly(stage, where, _ENDS[how]), **rest)

    Runner.__init__ = deadly  # type: ignore[method-assign]


def main(name: str, prefix: str, namespace: str) -> None:
    """Runs until SIGTERM, as the service itself does. The settings come from the environment."""
    from headrace import service

    topics = service.Topics(prefix)
    if poison := os.environ.get("TEST_POISON"):
        _make_deadly(*poison.split())
    if name == "enricher":
        from enricher import main as enricher
        from enricher.settings import EnricherSettings

        settings = EnricherSettings.load()
        service.run(name, settings, lambda stop: enricher.build(settings, stop, topics))
    elif name == "realtime-loader":
        from loaders.realtime import main as realtime
        from loaders.realtime.settings import RealtimeLoaderSettings

        of_realtime = RealtimeLoaderSettings.load()
        service.run(name, of_realtime, lambda stop: realtime.build(of_realtime, stop, topics))
    else:
        from loaders.batch import main as batch
        from loaders.batch.settings import BatchLoaderSettings

        of_batch = BatchLoaderSettings.load()
        service.run(name, of_batch, lambda stop: batch.build(of_batch, stop, topics, namespace))


if __name__ == "__main__":
    main(*sys.argv[1:])
