"""Scores that nobody is told: a challenger scores what the champion scored, on a thread of its own, and both are written down.

The requests do not wait for it: where it cannot keep up, what does not fit into its queue is left out and counted. No subject is
written: a line says which event (`source`, `id`), which versions, and both scores.
"""

import contextvars
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Full, Queue
from typing import BinaryIO, NamedTuple

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from enrichment_api.cache import Scores
from headrace.errors import in_a_line

_WAITING = 64  # batches of at most 1,000 events

_log = structlog.get_logger()
_scored = Counter("enrichment_api_shadow_events_total", "Events that a challenger scored in the shadow", ["version"])
_failed = Counter("enrichment_api_shadow_errors_total", "Events that a challenger could not score in the shadow", ["version"])
_left_out = Counter("enrichment_api_shadow_left_out_total", "Events that the shadow did not score, since it could not keep up")
_apart = Histogram(
    "enrichment_api_shadow_difference",
    "How far the challenger's score is from the champion's",
    ["version"],
    buckets=(0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1),
)


class _Work(NamedTuple):
    challenger: Scores
    champion: str
    rows: NDArray[np.float32]
    keys: Sequence[tuple[str, str]]
    values: NDArray[np.float32]


class _Line(msgspec.Struct):
    at: float  # seconds since 1970
    source: str
    id: str
    champion: str  # versions
    challenger: str
    champion_score: float
    challenger_score: float


class Shadow:
    """`offer` hands work over; a thread does it.

    The file at `path` (None: only metrics) begins anew at `max_bytes`; the one before it is kept.
    """

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._queue: Queue[_Work | None] = Queue(_WAITING)
        self._file: BinaryIO | None = None
        self._trouble = False
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="shadow", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is in hand, leave the rest, and close the file."""
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._queue.put(None)
        self._thread.join(5)

    def offer(
        self, challenger: Scores, champion: str, rows: NDArray[np.float32], keys: Sequence[tuple[str, str]], values: NDArray[np.float32]
    ) -> None:
        """Score `rows` of the events `keys` (source, id) some time; `values` are what the champion (of that version) said. Never waits."""
        try:
            self._queue.put_nowait(_Work(challenger, champion, rows, keys, values))
        except Full:
            _left_out.inc(len(keys))

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                self._do(work)
            except Exception as error:  # whatever a model or a disk does: the next batch may fare better
                if not isinstance(error, OSError):
                    _failed.labels(work.challenger.card.version).inc(len(work.keys))
                if not self._trouble:
                    _log.warning("the shadow's scores are not written down", why=in_a_line(error), version=work.challenger.card.version)
                self._trouble = True
            else:
                self._trouble = False
        if self._file:
            self._file.close()

    def _do(self, work: _Work) -> None:
        version = work.challenger.card.version
        found = work.challenger.score(work.rows)
        good = np.flatnonzero((found >= 0) & (found <= 1) & (work.values >= 0))
        _failed.labels(version).inc(len(found) - len(good))
        _scored.labels(version).inc(len(good))
        apart = _apart.labels(version)
        for difference in np.abs(found[good] - work.values[good]).tolist():
            apart.observe(difference)
        now, theirs, ours = time.time(), work.values.tolist(), found.tolist()
        encode = msgspec.json.encode
        self._write(b"".join(encode(_Line(now, *work.keys[p], work.champion, version, theirs[p], ours[p])) + b"\n" for p in good.tolist()))

    def _write(self, lines: bytes) -> None:
        if self._path is None:
            return
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab", buffering=0)
        elif self._file.tell() + len(lines) > self._max_bytes:
            self._file.close()
            self._file = None
            os.replace(self._path, self._path.with_name(self._path.name + ".1"))
            self._file = self._path.open("ab", buffering=0)
        self._file.write(lines)
