"""Messages on disk, in order, until Kafka has them. Everything here blocks: the event loop calls it in a thread.

file  = MAGIC frame*
frame = length (u32, of the body), CRC-32 (u32, of length and body), body
body  = length of the topic (u8), topic, length of the key (u32), key, value        all numbers big-endian

A worker appends to files in a folder of its own, which it holds a lock on. A folder that nobody holds belonged to a worker that is gone:
who starts next takes it over, and sends what is in it before its own. A file is removed once Kafka acknowledged all of it; the place up to
which it is sent is kept in memory only, so after a kill one file is sent again from its beginning.
"""

import contextlib
import fcntl
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import structlog

from headrace.dead_letter import Unavailable

MAGIC = b"HRSPOOL1"
SUFFIX = ".spool"

_HEAD = struct.Struct(">II")
_LENGTH = struct.Struct(">I")
_FILE_BYTES = 16_000_000  # after which the next file is begun: as much may be sent again after a kill
_LOCK = "lock"

_log = structlog.get_logger()


class Item(NamedTuple):
    """One message: where it goes, its partition key, and its value."""

    topic: str
    key: bytes
    value: bytes


def frame(item: Item) -> bytes:
    """`item` as it stands in a file. Pure."""
    topic = item.topic.encode()
    body = b"".join((bytes((len(topic),)), topic, _LENGTH.pack(len(item.key)), item.key, item.value))
    return _HEAD.pack(len(body), _crc(len(body), body)) + body


def unframe(data: bytes, start: int = 0) -> tuple[list[Item], int]:
    """The messages from `start` on, up to the first frame that is not whole or not right, and where that begins. Pure."""
    items = []
    while len(data) - start >= _HEAD.size:
        length, crc = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        if end > len(data):
            break
        body = data[start + _HEAD.size : end]
        if crc != _crc(length, body):
            break
        key_at = 1 + body[0]
        value_at = key_at + _LENGTH.size + _LENGTH.unpack_from(body, key_at)[0]
        items.append(Item(body[1:key_at].decode(), body[key_at + _LENGTH.size : value_at], body[value_at:]))
        start = end
    return items, start


def _crc(length: int, body: bytes) -> int:
    return crc32(body, crc32(_LENGTH.pack(length)))  # with the length in it, a run of zeros is no frame


class _File:
    """One file: `end` is where what is known to be on disk ends, `sent` how far Kafka has it."""

    __slots__ = ("end", "path", "sent")

    def __init__(self, path: Path, end: int) -> None:
        self.path = path
        self.end = end
        self.sent = len(MAGIC)


class SpoolFiles:
    """The files of one worker and of those before it that are gone. One thread may append while another reads."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        """Make a folder in `root`, and take over those that nobody holds. `max_bytes` bounds all of them. Raises OSError."""
        self._root = root
        self._max_bytes = max_bytes
        self._files: deque[_File] = deque()  # the oldest first
        self._held: dict[Path, int] = {}
        self._current: int | None = None  # what is appended to: the last of `_files`
        self._number = 0
        self._changing = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        self._own = root / f"{time.time_ns():020d}-{os.getpid()}"
        with self._nobody_else():
            for folder in sorted(path for path in root.iterdir() if path.is_dir()):
                self._take_over(folder)
            self._own.mkdir()
            self._hold(self._own)
        _sync(root)

    @property
    def size(self) -> int:
        """Bytes on disk that are not yet removed."""
        return sum(file.end for file in tuple(self._files))

    @property
    def empty(self) -> bool:
        """Whether Kafka has all of it."""
        return all(file.sent == file.end for file in tuple(self._files))

    @property
    def full(self) -> bool:
        """Whether `max_bytes` are used."""
        return self.size >= self._max_bytes

    def append(self, frames: Iterable[bytes]) -> None:
        """Write, and return once it is on disk; all of it or nothing.

        Raises Unavailable where the spool is full, OSError where the disk is full or fails.
        """
        data = b"".join(frames)
        with self._changing:
            if self.size + len(data) > self._max_bytes:
                raise Unavailable(f"the spool holds all that it may, {self._max_bytes} bytes")
            handle = self._current
            if handle is None or self._files[-1].end >= _FILE_BYTES:
                handle = self._begin()
            file = self._files[-1]
            try:
                _write(handle, data)
                os.fdatasync(handle)
            except OSError:
                self._cut(handle, file)
                raise
            file.end += len(data)

    def read(self, most: int) -> tuple[list[Item], int]:
        """The oldest messages that are not sent, of one file and about `most` bytes, and how many bytes they are there. Raises OSError.

        `most` must be larger than any message.
        """
        while True:
            file = self._oldest()
            if file is None:
                return [], 0
            with file.path.open("rb") as opened:
                data = os.pread(opened.fileno(), min(most, file.end - file.sent), file.sent)
            items, end = unframe(data)
            if items:
                return items, end
            self._set_aside(file)

    def done(self, count: int) -> None:
        """Kafka has the `count` bytes that were read last. Removes a file that is sent. Raises OSError."""
        with self._changing:
            file = next(file for file in self._files if file.sent < file.end)
            file.sent += count
            if file.sent == file.end:
                self._forget(file)
                file.path.unlink()

    def close(self) -> None:
        """Let go of the folders; those with nothing in them are removed."""
        with self._changing, self._nobody_else():
            self._end_current()
            for folder in list(self._held):
                self._let_go(folder)

    def _oldest(self) -> _File | None:
        return next((file for file in tuple(self._files) if file.sent < file.end), None)

    def _begin(self) -> int:
        self._end_current()
        self._number += 1
        path = self._own / f"{self._number:012d}{SUFFIX}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(handle, MAGIC)
            _sync(self._own)
        except OSError:
            os.close(handle)
            path.unlink()
            raise
        self._current = handle
        self._files.append(_File(path, len(MAGIC)))
        return handle

    def _cut(self, handle: int, file: _File) -> None:
        """Take back what could not be written whole. Where even that fails, nothing more is appended to this file."""
        try:
            os.ftruncate(handle, file.end)
        except OSError:
            self._end_current()
        if file.sent == file.end:  # nothing is in it: the disk may need the room
            self._forget(file)
            file.path.unlink(missing_ok=True)

    def _end_current(self) -> None:
        if self._current is not None:
            os.close(self._current)
            self._current = None

    def _forget(self, file: _File) -> None:
        if file is self._files[-1]:
            self._end_current()
        self._files.remove(file)

    def _set_aside(self, file: _File) -> None:
        """What cannot be read from here on is kept for a person."""
        kept = file.path.with_suffix(".damaged")
        _log.error(
            "a spool file is damaged: what is before the damage is sent", file=str(kept), at=file.sent, lost_bytes=file.end - file.sent
        )
        with self._changing:
            self._forget(file)
            file.path.rename(kept)

    def _take_over(self, folder: Path) -> None:
        if not self._hold(folder):
            return
        paths = sorted(folder.glob("*" + SUFFIX))
        for path in paths:
            end = path.stat().st_size
            if path is paths[-1]:
                end = _without_torn_tail(path)
            if end > len(MAGIC):
                self._files.append(_File(path, end))
            else:
                path.unlink()
        if paths:
            _log.info("took over a spool", folder=folder.name, files=len(paths))
        else:
            self._let_go(folder)

    def _hold(self, folder: Path) -> bool:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._held[folder] = handle
        return True

    def _let_go(self, folder: Path) -> None:
        if not any(path.name != _LOCK for path in folder.iterdir()):
            (folder / _LOCK).unlink()
            folder.rmdir()
        os.close(self._held.pop(folder))

    @contextlib.contextmanager
    def _nobody_else(self) -> Iterator[None]:
        """Folders come and go under this lock only."""
        with (self._root / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def frames(topic: str, keyed: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """Keys and values for `topic`, framed. Pure."""
    return [frame(Item(topic, key, value)) for key, value in keyed]


def _without_torn_tail(path: Path) -> int:
    """Cut off what was being written when its worker was killed; nobody was told that it is durable. Returns what is left, in bytes."""
    data = path.read_bytes()
    end = unframe(data, len(MAGIC))[1] if len(data) > len(MAGIC) else 0
    if end < len(data):
        _log.warning("cut the torn end of a spool file", file=str(path), bytes=len(data) - end)
        os.truncate(path, end)
    return end


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
