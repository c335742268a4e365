"""One connection to an HTTP server, kept between requests, with a deadline for the whole of an exchange.

Time-outs of a socket start anew with each byte, so whatever drips holds a client that has only those for ever. And the standard library's
client takes a fifth of the processor time of httpx's for the bodies here, which are some 100 kB.
"""

import io
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import urlsplit


class TooLong(Exception):
    """The body of a response is longer than it may be."""


class Connection:
    """For one thread at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._path = parts.path.rstrip("/")
        self._http = kind(parts.hostname or "", parts.port)

    def post(self, path: str, body: bytes, most_bytes: int, until: float) -> tuple[int, bytes]:
        """Status and body of the response to `body` (JSON). It is here at `until` (on time.monotonic) or never.

        Raises TimeoutError, TooLong, HTTPException (no HTTP, or cut), or OSError (no connection). What was kept from an earlier
        request may have been closed by the server in the meantime: then the request is made once more, so it must bear repeating.
        """
        kept = self._http.sock is not None
        try:
            return self._exchange(path, body, most_bytes, until)
        except (ConnectionError, HTTPException):  # a server that closes says so by either
            self._http.close()
            if not kept:
                raise
        except BaseException:
            self._http.close()
            raise
        return self.post(path, body, most_bytes, until)

    def _exchange(self, path: str, body: bytes, most_bytes: int, until: float) -> tuple[int, bytes]:
        self._http.response_class = lambda sock, **options: _Response(sock, until, **options)  # type: ignore[assignment]
        self._http.timeout = _left(until)
        if self._http.sock is not None:
            self._http.sock.settimeout(_left(until))
        self._http.request("POST", self._path + path, body, {"content-type": "application/json"})
        with self._http.getresponse() as response:
            found = response.read(most_bytes + 1)
            if len(found) > most_bytes:
                raise TooLong(f"its answer is longer than {most_bytes} bytes")
            if response.length:
                raise IncompleteRead(found, response.length)
            return response.status, found


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Response(HTTPResponse):
    """A response whose every read knows the deadline."""

    def __init__(self, sock: socket.socket, until: float, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock, until))


class _Until(io.RawIOBase):
    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock, self._until = sock, until
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        self._sock.settimeout(_left(self._until))
        return self._raw.readinto(into)

    def close(self) -> None:
        self._raw.close()
        super().close()
