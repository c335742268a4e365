"""A thread that looks at the lake now and then. Requests never wait for it."""

import contextvars
import threading
from abc import ABC, abstractmethod


class Looking(ABC):
    """Looks at once, and then every `seconds`."""

    def __init__(self, name: str, seconds: float) -> None:
        self._seconds = seconds
        self._stop = threading.Event()
        context = contextvars.copy_context()  # what the log says of this process, which a thread would not know
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True)

    @abstractmethod
    def look(self) -> None:
        """Read what changed since the last time. Raises nothing."""

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns without waiting for a look that goes on (the thread dies with the process)."""
        self._stop.set()

    def _run(self) -> None:
        while True:
            self.look()
            if self._stop.wait(self._seconds):
                return
