"""What the servers of REST and of gRPC have in common: they take connections, look at who is too slow, make room, and stop."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from socket import socket
from typing import Generic, Protocol, TypeVar

from collector.admission import Admission
from headrace.dead_letter import Unavailable

SWEEP_EVERY = 0.5  # seconds between two looks at who is too slow
_PATIENCE = 2.0  # seconds that a request may take to come where others wait for its room


class Abortable(Protocol):
    """One connection."""

    def abort(self) -> None:
        """Close it now, whatever is in flight."""


C = TypeVar("C", bound=Abortable)


class Listening(ABC, Generic[C]):
    """The connections of one listening socket."""

    def __init__(self, admission: Admission, receive_seconds: float, tls: ssl.SSLContext | None) -> None:
        self.admission = admission
        self.tls = tls
        self.connections: set[C] = set()
        self.now = 0.0  # the loop's time, renewed by each sweep at least
        self._handshake = receive_seconds if tls else None

    async def start(self, listener: socket) -> None:
        """Take connections from now on."""
        loop = self.loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection, sock=listener, ssl=self.tls, ssl_handshake_timeout=self._handshake, backlog=4096
        )
        self._sweep()

    async def stop(self, grace: float) -> None:
        """Take no more connections, finish what is in flight for at most `grace` seconds, then close."""
        self._server.close()
        await self._ask_to_leave()
        end = self.loop.time() + grace
        while self.connections and self.loop.time() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()
        self._sweeper.cancel()

    def admit(self, size: int) -> None:
        """Count bytes that are held. Where there is no room, those who take long to send theirs lose it. Raises Unavailable."""
        try:
            self.admission.take(size)
        except Unavailable:
            self._cut_off(self.loop.time() - _PATIENCE)
            self.admission.take(size)

    def _sweep(self) -> None:
        self.now = self.loop.time()
        self._look()
        self._sweeper = self.loop.call_later(SWEEP_EVERY, self._sweep)

    @abstractmethod
    def _connection(self) -> asyncio.BaseProtocol:
        """A new one."""

    @abstractmethod
    async def _ask_to_leave(self) -> None:
        """Tell every connection that the server stops."""

    @abstractmethod
    def _cut_off(self, late: float) -> None:
        """End what has held room since before `late`, and is not here yet."""

    @abstractmethod
    def _look(self) -> None:
        """End what is too slow. It is `now`."""
