"""The file of the write keys: JSON, for its owner's eyes, replaced as a whole, so that a reader never meets half of it."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from headrace.keys import WriteKey


class Unreadable(Exception):
    """The file is there and cannot be used; the message is one sentence for a person."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[WriteKey]


_decoder = msgspec.json.Decoder(_File)

Signature = tuple[int, int, int] | None


def signature(path: Path) -> Signature:
    """What is another whenever the file is another, or None where there is none. Raises OSError."""
    try:
        return _signature(os.stat(path))
    except FileNotFoundError:
        return None


def read(path: Path) -> tuple[list[WriteKey], Signature]:
    """The keys in the file, none where there is no file, and its signature. Raises Unreadable."""
    try:
        with path.open("rb") as file:
            seen = _signature(os.fstat(file.fileno()))
            return _decoder.decode(file.read()).keys, seen
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: not a file of write keys: {error}") from None


def change(path: Path, how: Callable[[Sequence[WriteKey]], Sequence[WriteKey]]) -> None:
    """Put what `how` makes of the keys into the file's place, durably; two writers come one after the other.

    Raises Unreadable, OSError where the folder cannot be written, and what `how` raises; then the file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = how(read(path)[0])
        _replace(path, msgspec.json.format(msgspec.json.encode(_File(list(keys))), indent=1) + b"\n")


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _signature(stat: os.stat_result) -> Signature:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
