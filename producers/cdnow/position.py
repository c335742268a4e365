"""How far the replay has come, kept in a file: written only after the events before it were acknowledged."""

import hashlib
import os
from pathlib import Path

import msgspec


class _State(msgspec.Struct):
    data_sha256: str
    sent: int


class Position:
    """The number of purchases of the data in `data` that were sent. `read` and `write` touch `folder`/position.json.

    A replay that is killed sends at most one batch again; the ids are the same, so nothing is doubled.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self._file = folder / "position.json"
        self._digest = hashlib.sha256(data.read_bytes()).hexdigest()

    def read(self) -> int:
        """Where to go on: 0 where nothing is known, or what is known is of other data."""
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=_State)
        except (OSError, msgspec.DecodeError):
            return 0
        return max(0, state.sent) if state.data_sha256 == self._digest else 0

    def write(self, sent: int) -> None:
        """Remember that the first `sent` purchases are durable."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(f".{os.getpid()}.new")
        new.write_bytes(msgspec.json.encode(_State(self._digest, sent)))
        os.replace(new, self._file)
