"""What both clients share: everything but how a caller waits."""

import atexit
import logging
import os
import re
import ssl
import threading
import weakref
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from producers.client.backlog import Backlog
from producers.client.batches import MAX_BYTES, MAX_EVENTS
from producers.client.engine import Engine, OnError, OnRejected, Transport
from producers.client.events import InvalidEvent, TypedEvent, event_text, new_id
from producers.client.policy import GaveUp, RequestRefused
from producers.client.rest import Rest
from producers.client.spool import QueueFull, Spool

USER_AGENT = "headrace-python/0.1"
IN_FLIGHT = {"rest": 1, "grpc": 8}  # requests under way at one time; over one HTTP connection order needs one
_STOP_SECONDS = 5.0  # that the thread gets to close its connections

_URL = re.compile(r"https?://[^/?#\s]+")
_HOST_PORT = re.compile(r"(dns:///)?[^/\s]+:[0-9]+|unix:\S+")

_log = logging.getLogger("headrace.client")
_clients: "weakref.WeakSet[Core]" = weakref.WeakSet()
_of_parents: list[object] = []  # what a forked child must never finalize: it shares sockets with its parent


class Stats(NamedTuple):
    """Counts since the client was made, of events but for `retried`, and what waits now.

    `retried` counts requests that were sent again; `queued` are events in memory or under way, `spooled` on disk; `problem` is why
    nothing is sent until a person mends it.
    """

    accepted: int
    rejected: int
    retried: int
    queued: int
    spooled: int
    problem: str | None


class Core:
    """A client without its ways of waiting. All times are in seconds, all sizes in bytes.

    `target` is the URL of the collector, or host:port for gRPC (`tls=True` for gRPC over TLS; `ca_file` for a CA of one's own). `source`
    says who sends; `send` may name another. A batch goes out when it holds `max_batch_events` or `max_batch_bytes`, and at the latest
    `linger` after its oldest event came in.

    At most `max_queue_events` and `max_queue_bytes` wait in memory. Where there is a `spool_dir`, more goes to disk, at most
    `spool_max_bytes`; with `durable`, every event does before `send` returns. Where there is no room at all, `send` waits for
    `block_seconds` (None: for ever) and raises QueueFull.

    `on_rejected(event, reason, detail)` is told of each event that the collector refused for good; `on_error(refusal)` when it refuses
    requests until a person mends something (a wrong key): the events are kept, and asked for again every `hold_seconds`. `in_flight`
    requests are under way at one time, each for at most `timeout`. At exit of the process `flush` gets `exit_seconds`.

    Raises SpoolTaken where another process has the spool, OSError where its folder cannot be used, ValueError for a wrong argument.
    """

    def __init__(
        self,
        target: str,
        write_key: str,
        *,
        source: str,
        transport: Literal["rest", "grpc"] = "rest",
        max_batch_events: int = MAX_EVENTS,
        max_batch_bytes: int = MAX_BYTES,
        linger: float = 0.1,
        max_queue_events: int = 10_000,
        max_queue_bytes: int = 16_000_000,
        block_seconds: float | None = 0.0,
        spool_dir: str | Path | None = None,
        spool_max_bytes: int = 256_000_000,
        durable: bool = False,
        in_flight: int | None = None,
        timeout: float = 30.0,
        hold_seconds: float = 60.0,
        exit_seconds: float = 5.0,
        compress: bool = True,
        tls: bool = False,
        ca_file: str | Path | None = None,
        on_rejected: OnRejected | None = None,
        on_error: OnError | None = None,
    ) -> None:
        if transport not in IN_FLIGHT:
            raise ValueError(f"transport {transport!r} is not known: use 'rest' or 'grpc'")
        if bool(_URL.match(target)) != (transport == "rest") or not (transport == "rest" or _HOST_PORT.fullmatch(target)):
            form = "a URL such as http://127.0.0.1:8000" if transport == "rest" else "host:port, such as 127.0.0.1:50051"
            raise ValueError(f"target {target!r} does not fit transport {transport!r}: it must be {form}")
        if durable and spool_dir is None:
            raise ValueError("durable=True needs a spool_dir to write to")
        if not (write_key.isascii() and write_key.isprintable() and write_key and source):
            raise ValueError("write_key and source must not be empty, and a write key is of printable ASCII characters")
        self._target, self._write_key, self._source, self._kind = target, write_key, source, transport
        self._batch_bytes, self._timeout, self._compress = max_batch_bytes, timeout, compress
        self._tls, self._ca_file = tls, ca_file
        if ca_file:  # a wrong one is said here, not by the thread
            ssl.create_default_context(cafile=ca_file)
        self._block, self._exit_seconds = block_seconds, exit_seconds
        self._in_flight, self._hold = in_flight or IN_FLIGHT[transport], hold_seconds
        self._on_rejected, self._on_error = on_rejected, on_error
        self._limits = {
            "max_events": max_queue_events,
            "max_bytes": max_queue_bytes,
            "batch_events": max_batch_events,
            "batch_bytes": max_batch_bytes,
        }
        self._durable, self._linger = durable, linger
        self._spool = Spool(Path(spool_dir), spool_max_bytes) if spool_dir is not None else None
        self._unusable: str | None = None
        self._begin()
        if self._spool and self._spool.records:  # of the process before
            self._start()
        _clients.add(self)
        atexit.register(self._at_exit)

    def stats(self) -> Stats:
        """Counts for a dashboard, or a test."""
        backlog, engine = self._backlog, self._engine
        spooled = self._spool.records if self._spool else 0
        queued = max(0, backlog.left(backlog.handed) - spooled)
        counts = (engine.accepted, engine.rejected, engine.retried) if engine else (0, 0, 0)
        return Stats(*counts, queued, spooled, str(backlog.held) if backlog.held else self._unusable)

    def _begin(self) -> None:
        """An empty backlog, with nobody who sends from it."""
        self._backlog = Backlog(self._spool, durable=self._durable, linger=self._linger, **self._limits)
        self._engine: Engine | None = None
        self._starting = threading.Lock()

    def _start(self) -> None:
        """Begin to send, where nobody has begun. Raises RuntimeError where the client is closed."""
        with self._starting:
            self._check()
            if self._engine is None:
                self._engine = Engine(
                    self._backlog,
                    self._connect,
                    in_flight=self._in_flight,
                    hold=self._hold,
                    on_rejected=self._on_rejected,
                    on_error=self._on_error,
                )
                self._backlog.wake = self._engine.wake
                self._engine.wake()

    def _connect(self) -> Transport:
        if self._kind == "rest":
            tls = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else None
            return Rest(self._target, self._write_key, timeout=self._timeout, compress=self._compress, user_agent=USER_AGENT, tls=tls)
        # Unless somebody has decided: gRPC's own handlers of fork() now and then end a child with SIGSEGV where a call is under way.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        import grpc

        from producers.client.rpc import Rpc

        ca = Path(self._ca_file).read_bytes() if self._ca_file else None
        credentials = grpc.ssl_channel_credentials(ca) if self._tls or ca else None
        return Rpc(self._target, self._write_key, timeout=self._timeout, user_agent=USER_AGENT, tls=credentials)

    def _text(
        self,
        event: TypedEvent | str,
        data: Mapping[str, Any] | None,
        source: str | None,
        *,
        subject: str | None,
        id: str | None,
        time: datetime | str | None,
        schema_ref: str | None = None,
    ) -> tuple[str, bytes]:
        """Id and JSON text of an event: a typed one, or `data` of the type named. Raises InvalidEvent."""
        id = id or new_id()
        source = source or self._source
        if isinstance(event, str):
            text = event_text(event, data, id=id, source=source, subject=subject, time=time, schema_ref=schema_ref)
        else:
            text = event_text(event.event_type, event, id=id, source=source, subject=subject, time=time, schema_ref=event.schema_ref)
        if len(text) + 2 > self._batch_bytes:
            raise InvalidEvent(f"the event has {len(text)} bytes: no request may have more than {self._batch_bytes}")
        return id, text

    def _put(self, text: bytes) -> None:
        """Take an event. Raises QueueFull, OSError, or RuntimeError where nothing more can be taken."""
        self._check()
        if self._engine is None:
            self._start()
        self._backlog.put(text)

    def _taken(self, text: bytes) -> bool:
        """`_put`, but False where there is no room."""
        try:
            self._put(text)
        except QueueFull:
            return False
        return True

    def _check(self) -> None:
        """Raises where nothing will ever be sent again."""
        if self._unusable:
            raise RuntimeError(self._unusable)
        if self._engine and self._engine.died:
            raise RuntimeError(f"the client's thread ended: {self._engine.died}") from self._engine.died

    def _flushed(self, target: int) -> bool:
        """Whether the first `target` events are acknowledged. Raises RequestRefused where they will not be as things are."""
        left = self._backlog.left(target)
        if left:
            self._check()
            if self._backlog.held:
                raise self._backlog.held
        return not left

    def _stop(self) -> None:
        """Stop sending, and put on disk what is left. Raises GaveUp where there is no disk to put it on."""
        atexit.unregister(self._at_exit)
        with self._starting:
            if self._unusable:
                return
            self._unusable = "the client is closed"
        unsent = self._engine.stop(_STOP_SECONDS) if self._engine else []
        held = self._backlog.held
        if lost := self._backlog.close(unsent):
            raise GaveUp(f"{lost} events were not acknowledged before the client was closed" + (f": {held}" if held else ""))

    def _at_exit(self) -> None:
        """The process ends, and nobody closed the client."""
        try:
            self._last_flush(self._exit_seconds)
        except RequestRefused as refused:
            _log.error("at exit: %s", refused)
        try:
            self._stop()
        except GaveUp as lost:
            _log.error("at exit: %s", lost)

    def _last_flush(self, timeout: float) -> None:
        """Wait for acknowledgement without an event loop. Raises RequestRefused."""
        from producers.client.client import wait_until

        target = self._backlog.hurry()
        wait_until(self._backlog, lambda: self._flushed(target), timeout)

    def _after_fork(self) -> None:
        """In the child: what waits, the thread and the spool are the parent's."""
        _of_parents.append((self._engine, self._backlog))
        if self._unusable:
            return
        if self._spool is not None:
            self._spool.abandon()
            self._unusable = "the spool belongs to the parent process: make a client with a spool_dir of its own after the fork"
        elif self._kind == "grpc" and self._engine is not None:
            self._unusable = "gRPC does not work in a process forked after its first use: make the first use after the fork, or use REST"
        self._spool = None
        self._durable = False
        self._begin()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork)
