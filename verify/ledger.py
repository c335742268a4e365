"""The ledger: what was about to be sent, on disk before it was, and what became of it. Append-only; the one witness of the run.

One line of JSON for each intent (fsynced, several requests' at once, before any of their bytes is sent) and one for each outcome. An intent
without an outcome is `info`: it may have arrived.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import msgspec


class Outcome(StrEnum):
    """What a sender knows of a request."""

    OK = "ok"  # answered with success: durable
    FAIL = "fail"  # answered with a refusal, or never sent
    INFO = "info"  # no answer, or one that leaves it open (5xx)


class Sent(msgspec.Struct, array_like=True, frozen=True):
    """One event of a request. The hashes are hex SHA-256; see `verify.events.Event`."""

    id: str
    type: str
    kind: str
    detail: str
    payload_sha256: str
    search_sha256: str


class Intent(msgspec.Struct, tag="intent", tag_field="what", frozen=True):
    """A request that is about to be sent, for the `attempt`th time. `at` is seconds since the epoch."""

    request: int
    at: float
    protocol: str
    attempt: int
    events: list[Sent]


class Result(msgspec.Struct, tag="result", tag_field="what", frozen=True):
    """What became of a request. `status` is HTTP's, or that which gRPC's code corresponds to; 0 where there was no answer."""

    request: int
    at: float
    outcome: Outcome
    status: int


class Row(NamedTuple):
    """One sending of one event, as the checker reads it. `at` is when the answer came, 0 where none did."""

    request: int
    attempt: int
    protocol: str
    event: Sent
    outcome: Outcome
    status: int
    at: float


class Ledger:
    """Appends to the file `path`, which must not be there yet. Use it as a context; records are on disk when that ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._encode = msgspec.json.Encoder().encode
        self._queue: SimpleQueue[tuple[bytes, asyncio.Future[None] | None] | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="ledger")
        self._failed: OSError | None = None

    def __enter__(self) -> "Ledger":
        self._writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._writer.join()
        os.close(self._file)
        if self._failed:
            raise self._failed

    async def intend(self, intent: Intent) -> None:
        """Returns once `intent` is on disk. Raises OSError where it cannot be."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put((self._encode(intent), done))
        await done

    def result(self, result: Result) -> None:
        """Write what became of a request, soon."""
        self._queue.put((self._encode(result), None))

    def _write(self) -> None:
        """All that waits is written at once and fsynced at once, so that many senders share one fsync."""
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while not self._queue.empty():
                if (more := self._queue.get()) is None:
                    last = True
                    break
                batch.append(more)
            try:
                _write_all(self._file, b"".join(line + b"\n" for line, _ in batch))
                os.fsync(self._file)
            except OSError as error:
                self._failed = error
            for _, done in batch:
                if done is not None:
                    done.get_loop().call_soon_threadsafe(_settle, done, self._failed)
            if last:
                break


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _settle(done: asyncio.Future[None], error: OSError | None) -> None:
    if done.done():
        return
    if error:
        done.set_exception(error)
    else:
        done.set_result(None)


def read(path: Path) -> Iterator[Row]:
    """Every sending in the file, in the order of the intents. A last line that was cut off is left out: it was not sent yet.

    Raises ValueError where an outcome has no intent, or a request stands there twice: that is no ledger.
    """
    results = _results(path)
    for record in _records(path):
        if isinstance(record, Intent):
            result = results.pop(record.request, Result(record.request, 0.0, Outcome.INFO, 0))
            for event in record.events:
                yield Row(record.request, record.attempt, record.protocol, event, result.outcome, result.status, result.at)
    if results:
        raise ValueError(f"{path}: request {next(iter(results))} has an outcome and no intent")


def _results(path: Path) -> dict[int, Result]:
    found: dict[int, Result] = {}
    for record in _records(path):
        if isinstance(record, Result):
            if record.request in found:
                raise ValueError(f"{path}: request {record.request} has two outcomes")
            found[record.request] = record
    return found


def _records(path: Path) -> Iterator[Intent | Result]:
    decoder = msgspec.json.Decoder(Intent | Result)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def longest_gap(moments: Sequence[float]) -> float:
    """The longest time between two neighbours of sorted `moments`, in seconds."""
    return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)
