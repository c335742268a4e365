"""Events on disk, first in first out, until they are acknowledged. It survives the death of its process at any point.

In the folder: `lock` (held by the one process that owns it), segments `<number>.spool` of records (see frames.py), written to at the end
only, and `position`, which says up to where the first segment is acknowledged. A lost or old position costs a repetition, never an event.
"""

import fcntl
import logging
import os
import threading
import zlib
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from producers.client.batches import batches
from producers.client.frames import HEAD_BYTES, frames, scan

SEGMENT_BYTES = 4_000_000  # a segment that has more is closed; this much is read at once
_LEAST_SEGMENT = 64_000
_FIRST = 10**9  # number of the first segment; there is room before it

_log = logging.getLogger("headrace.client")


class QueueFull(Exception):
    """There is no room for the event, neither in memory nor on disk. It was not taken."""


class SpoolTaken(Exception):
    """Another process owns the spool."""


class Mark(NamedTuple):
    """A place in the spool, and how many records were read since the mark before."""

    segment: int
    offset: int
    records: int


class Chunk(NamedTuple):
    """What `read` found. `lost` counts records that were whole when the spool was opened and are damaged now."""

    texts: list[bytes]
    mark: Mark
    lost: int


class _Segment:
    """One file: `size` is what is written, `records` what is in it from the beginning of reading."""

    def __init__(self, path: Path, size: int = 0, records: int = 0) -> None:
        self.path, self.size, self.records = path, size, records
        self.number = int(path.stem)


class Spool:
    """The spool in `folder`, which is made where it is missing. Safe to use from several threads; one of them reads.

    `max_bytes` bounds the size of all files. Raises SpoolTaken where another process has it, OSError where the folder cannot be used.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max = folder, max_bytes
        self._segment_bytes = max(_LEAST_SEGMENT, min(SEGMENT_BYTES, max_bytes // 8))
        self._lock, self._sync_lock = threading.RLock(), threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _own(folder)
        self._position_fd = os.open(folder / "position", os.O_RDWR | os.O_CREAT, 0o600)
        self._tail_fd: int | None = None  # of the last segment, where it is ours to write
        self._written = self._synced = 0  # appends
        self._segments: deque[_Segment] = deque()
        self._ahead: deque[tuple[bytes, int]] = deque()  # records that were read and not yet given out, and where they end
        self._reading, self._read_to, self._read_records = (
            0,
            0,
            0,
        )  # the segment, the bytes and the records of it that are in or past _ahead
        self.records = 0
        self._closed = False
        self._open()

    def append(self, texts: Sequence[bytes]) -> None:
        """Write `texts`; they are on disk when this returns.

        Raises QueueFull, having written none, or OSError where they are written and the disk does not say that it has them.
        """
        data = frames(texts)
        with self._lock:
            if self._closed:
                raise RuntimeError("the client is closed")
            size = sum(segment.size for segment in self._segments)
            if size + len(data) > self._max:
                raise QueueFull(f"the spool {self._folder} is full: {self.records} events wait ({size} of {self._max} bytes)")
            try:
                segment, fd = self._tail()
                _write(fd, data, segment.size)
            except OSError as error:
                raise QueueFull(f"the spool {self._folder} cannot be written: {error.strerror}") from None
            segment.size += len(data)
            segment.records += len(texts)
            self.records += len(texts)
            self._written = ticket = self._written + 1
        self._sync(ticket)

    def read(self, max_events: int, max_bytes: int) -> Chunk | None:
        """The next records, each of them once. None where there are no more now."""
        with self._lock:
            lost = self._look_ahead()
            texts = next(batches((text for text, _ in self._ahead), max_events, max_bytes), [])
            end = 0
            for _ in texts:
                _, end = self._ahead.popleft()
            if not self._ahead:
                end = self._read_to  # with what is damaged at the end
            if not texts and not lost:
                return None
            return Chunk(texts, Mark(self._reading, end, len(texts) + lost), lost)

    def done(self, mark: Mark) -> None:
        """What was read up to `mark` is acknowledged. Marks come in the order of reading."""
        with self._lock:
            self.records -= mark.records
            while self._segments and self._segments[0].number < mark.segment:
                self._drop_first()
            self._note(mark.segment, mark.offset)
            first = self._segments[0] if self._segments else None
            if first and first.number == mark.segment and mark.offset >= first.size:
                ours = len(self._segments) == 1 and self._tail_fd is not None
                if not ours or first.size > _LEAST_SEGMENT:
                    self._drop_first()

    def put_first(self, texts: Sequence[bytes]) -> None:
        """Write `texts` before everything else: what was being sent when the process ended. Only `close` may follow. Raises OSError."""
        with self._lock:
            first = self._segments[0] if self._segments else None
            noted, offset = self._noted()
            begun = first is not None and noted == first.number and offset > 0
            rest = first.path.read_bytes()[offset:] if first and begun else b""
            path = self._path((first.number if first else max(noted, _FIRST)) - 1)
            self._note(int(path.stem), 0)  # before the file is there: a crash in between costs a repetition
            path.write_bytes(frames(texts) + rest)
            path.chmod(0o600)
            for each in (path, self._folder):
                _fsync(each)
            if begun:
                self._drop_first()
            self.records += len(texts)

    def close(self) -> None:
        """Let go of the folder. Nothing is removed."""
        with self._lock:
            self._closed = True
            try:
                if self._tail_fd is not None:
                    os.fsync(self._tail_fd)  # for an append that waits for it
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Close the files of a forked child, whose parent has the spool."""
        for fd in (self._tail_fd, self._position_fd, self._lock_fd):
            if fd is not None:
                os.close(fd)
        self._tail_fd = None

    def _open(self) -> None:
        first, offset = self._noted()
        for path in sorted(self._folder.glob("*.spool")):
            data = path.read_bytes()
            segment = _Segment(path, len(data))
            start = offset if segment.number == first else 0
            if segment.number < first or start >= len(data):
                path.unlink()
                continue
            whole = 0
            for text, _ in scan(data[start:]):
                segment.records += 1
                whole += HEAD_BYTES + len(text)
            if damaged := len(data) - start - whole:
                _log.warning("%s: %d bytes are damaged or were not written to the end: skipped", path, damaged)
            if not segment.records:
                path.rename(path.with_suffix(".damaged"))  # for a person to look at
                continue
            if not self._segments:
                self._reading, self._read_to = segment.number, start
            self._segments.append(segment)
            self.records += segment.records

    def _tail(self) -> tuple[_Segment, int]:
        """The segment to write to: a new one where the last was left by another process, or is large enough."""
        last = self._segments[-1] if self._segments else None
        if last and self._tail_fd is not None and last.size < self._segment_bytes:
            return last, self._tail_fd
        if self._tail_fd is not None:
            os.fsync(self._tail_fd)
            os.close(self._tail_fd)
            self._tail_fd = None
        noted, _ = self._noted()
        path = self._path(max(last.number + 1 if last else _FIRST, noted + 1))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _fsync(self._folder)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self._tail_fd = fd
        self._segments.append(_Segment(path))
        return self._segments[-1], fd

    def _sync(self, ticket: int) -> None:
        """One fsync for all who wrote before it began."""
        with self._sync_lock:
            if self._synced >= ticket:
                return
            with self._lock:
                if self._tail_fd is None:  # a roll synced it, or all of it is acknowledged
                    return
                upto, fd = self._written, os.dup(self._tail_fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._synced = upto

    def _look_ahead(self) -> int:
        """Fill `_ahead` where it is empty. Gives the number of records that cannot be read any more."""
        lost = 0
        while not self._ahead:
            segment = next((each for each in self._segments if each.number >= self._reading), None)
            if segment is None:
                break
            if segment.number > self._reading:
                self._reading, self._read_to, self._read_records = segment.number, 0, 0
            if self._read_to < segment.size:
                found = self._read_segment(segment)
                lost += segment.records - self._read_records - found
                self._read_to, self._read_records = segment.size, segment.records
            elif segment is self._segments[-1]:
                break
            else:
                self._reading, self._read_to, self._read_records = segment.number + 1, 0, 0
        return lost

    def _read_segment(self, segment: _Segment) -> int:
        try:
            with segment.path.open("rb") as file:
                file.seek(self._read_to)
                data = file.read(segment.size - self._read_to)
        except OSError as error:
            _log.error("%s cannot be read, and its events are lost: %s", segment.path, error.strerror)
            return 0
        self._ahead.extend((text, self._read_to + end) for text, end in scan(data))
        return len(self._ahead)

    def _drop_first(self) -> None:
        segment = self._segments.popleft()
        if not self._segments and self._tail_fd is not None:
            os.close(self._tail_fd)
            self._tail_fd = None
        segment.path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:020}.spool"

    def _note(self, segment: int, offset: int) -> None:
        said = f"{segment:020} {offset:020}"
        os.pwrite(self._position_fd, f"{said} {zlib.crc32(said.encode()):08x}\n".encode(), 0)

    def _noted(self) -> tuple[int, int]:
        said, _, crc = os.pread(self._position_fd, 100, 0).decode(errors="replace").strip().rpartition(" ")
        if crc != f"{zlib.crc32(said.encode(errors='replace')):08x}" or not said:
            return 0, 0
        segment, offset = said.split()
        return int(segment), int(offset)


def _own(folder: Path) -> int:
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise SpoolTaken(f"the spool {folder} belongs to process {owner or '?'}: give each process a spool_dir of its own") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _write(fd: int, data: bytes, end: int) -> None:
    """Write `data` at the `end` of a file: all of it or nothing."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.ftruncate(fd, end)
        raise


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
