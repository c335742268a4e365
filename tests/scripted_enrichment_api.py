"""An enrichment API that answers as a test tells it to: a real server on a port of its own, which speaks HTTP or worse."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Json = dict[str, Any]
Behaviour = Callable[
    [socket.socket, list[Json]], None
]  # gets the connection and the events asked about; keeps the connection if it returns

SCORE: Json = {"model": "repurchase", "version": "v1", "score": 0.5, "features": "new"}


def http(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    """An HTTP response; with `length`, one whose Content-Length is not that of its body."""
    said = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {said}\r\n\r\n".encode() + body


def scores(events: list[Json]) -> bytes:
    """What the real API would answer, with one score for all purchases."""
    return json.dumps({"enrichments": [{"repurchase": SCORE} if event["type"] == "purchase" else {} for event in events]}).encode()


def well(connection: socket.socket, events: list[Json]) -> None:
    """Answers as it should."""
    connection.sendall(http(scores(events)))


class ScriptedApi:
    """`behave` can be changed at any time; `asked` has the ids of the events of each request."""

    def __init__(self, behave: Behaviour = well) -> None:
        self.behave = behave
        self.asked: list[list[str]] = []
        self.over = threading.Event()  # set at the end: a behaviour that waits, waits for this
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """No more connections."""
        self.over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._converse, args=(self._listener.accept()[0],), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            while lines.readline():
                length = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                events = json.loads(lines.read(length))["events"]
                self.asked.append([event["id"] for event in events])
                self.behave(connection, events)


@contextmanager
def scripted_api(behave: Behaviour = well) -> Iterator[ScriptedApi]:
    """A ScriptedApi for the time of a test."""
    api = ScriptedApi(behave)
    try:
        yield api
    finally:
        api.close()
