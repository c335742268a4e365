"""The online store: what is known of a customer, kept in Redis for who cannot wait for the lake. One layout for all who use it.

    features:<table>:<length of source>:<source><subject>  ->  a row, packed: a format, a generation, and the row's bytes
    features:<table>                                       ->  a hash: what was written last, when, and how many rows (`Written`)

A row is bytes of a fixed length that the writer and the reader agree on by `layout` (its name is kept, so that a row of another layout is
no row). The generation is that of the write it came with: rows that the lake has no longer are those of an earlier one, and go.
"""

import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line

if TYPE_CHECKING:
    import numpy as np
    from redis import Redis

Key = tuple[str, str]  # source and subject

_PREFIX = "features"
_HEAD = struct.Struct("<QQ")  # layout (a hash) and generation
_CHUNK = 1000  # rows in one exchange
_LOCK_SECONDS = 600  # that a writer may take for a chunk, the lake's part in it; after one that was killed, nobody writes for so long


class OnlineSettings(BaseSettings):
    """Where the online store is. Mix into a service's settings."""

    redis_url: SecretStr = Field(SecretStr(""), validation_alias="REDIS_URL", validate_default=True)


class Busy(Unavailable):
    """Another one writes at this moment."""


class Written(NamedTuple):
    """What stands in the store. `version` says of what in the lake it is a copy (table and snapshot)."""

    version: str
    generation: int
    rows: int
    at: float  # seconds since 1970


def layout_of(row: "np.dtype[Any]") -> int:
    """The name of a layout of rows: its hash, so a changed one is another, whose rows are written anew."""
    return int.from_bytes(sha256(repr(row.descr).encode()).digest()[:8], "little")


def connect(url: str, timeout: float) -> "Redis":
    """A client whose every exchange ends within `timeout` seconds. Touches nothing yet."""
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 1), protocol=2, client_name="headrace"
    )


class OnlineStore:
    """The rows of one table. Each method raises Unavailable where Redis does not answer, or not as it should."""

    def __init__(self, client: "Redis", table: str, layout: int, row_bytes: int) -> None:
        self._client: Any = client
        self._table = table
        self._about = f"{_PREFIX}:{table}"
        self._layout, self._row_bytes = layout, row_bytes
        self._value_bytes = _HEAD.size + row_bytes
        self._layout_bytes = struct.pack("<Q", layout)

    def key(self, key: Key) -> bytes:
        """Where the row of a customer is."""
        source, subject = key
        return f"{self._about}:{len(source)}:{source}{subject}".encode(errors="surrogatepass")

    def read(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The row of each customer in one exchange, None where there is none."""
        if not keys:
            return []
        with _unavailable():
            found = self._client.mget([self.key(key) for key in keys])
        head, size, layout = _HEAD.size, self._value_bytes, self._layout_bytes
        return [value[head:] if value is not None and len(value) == size and value[:8] == layout else None for value in found]

    def written(self) -> Written | None:
        """What was written last; None where nothing was, or a write did not end."""
        with _unavailable():
            said = self._client.hgetall(self._about)
        try:
            layout, version = int(said[b"layout"]), said[b"version"].decode()
            found = Written(version, int(said[b"generation"]), int(said[b"rows"]), float(said[b"at"]))
        except (KeyError, ValueError):
            return None
        return found if layout == self._layout else None

    def write(self, rows: Iterable[tuple[Key, bytes]], version: str) -> Written:
        """Put `rows` in the place of all that was there. A reader sees old and new rows meanwhile, and never none of a customer in both.

        One at a time: a second writer meanwhile raises Busy. A write that is cut off is begun anew by the next.
        """
        with _unavailable():
            lock = self._client.lock(f"{self._about}:writer", timeout=_LOCK_SECONDS, blocking=False, thread_local=False)
            if not lock.acquire():
                raise Busy("another writes the online store")
            try:
                generation = int(self._client.incr(f"{self._about}:generation"))
                count = 0
                for chunk in _chunks(rows):
                    head = _HEAD.pack(self._layout, generation)
                    self._client.mset({self.key(key): head + row for key, row in chunk})
                    count += len(chunk)
                    lock.reacquire()
                self._sweep(generation, lock)
                found = Written(version, generation, count, time.time())
                self._client.hset(self._about, mapping={"layout": self._layout, **found._asdict()})
            finally:
                if lock.owned():
                    lock.release()
        return found

    def erase(self, subjects: Iterable[str], source: str | None = None) -> int:
        """Delete the rows of `subjects`, of all sources where none is said. Gives how many there were.

        A writer that read the lake before may bring one back; its next round, of a lake without them, takes it away again.
        """
        with _unavailable():
            return sum(int(self._client.delete(*found)) for found in self._keys_of(set(subjects), source))

    def count(self, subjects: Iterable[str], source: str | None = None) -> int:
        """How many rows of `subjects` there are."""
        with _unavailable():
            return sum(int(self._client.exists(*found)) for found in self._keys_of(set(subjects), source))

    def _keys_of(self, subjects: set[str], source: str | None) -> Iterator[list[bytes]]:
        """Keys that rows of `subjects` have, some at a time: made where the source is known, looked for where it is not."""
        if source is not None:
            yield from _chunks(self.key((source, subject)) for subject in subjects)
            return
        for chunk in self._keys():
            if found := [key for key in chunk if self._subject_in(key) in subjects]:
                yield found

    def _subject_in(self, key: bytes) -> str:
        length, _, rest = key[len(self._about) + 1 :].decode(errors="surrogatepass").partition(":")
        return rest[int(length) :]

    def _keys(self) -> Iterator[list[bytes]]:
        """All keys of rows, some at a time."""
        pattern = "".join(f"\\{char}" if char in "*?[]^\\" else char for char in self._about) + ":[0-9]*"
        yield from _chunks(self._client.scan_iter(match=pattern, count=_CHUNK))

    def _sweep(self, generation: int, lock: Any) -> None:
        """Delete what is not of `generation`: the lake has it no longer."""
        for chunk in self._keys():
            values = self._client.mget(chunk)
            old = [
                k for k, v in zip(chunk, values, strict=True) if v is None or len(v) < _HEAD.size or _HEAD.unpack(v[:16])[1] != generation
            ]
            if old:
                self._client.delete(*old)
            lock.reacquire()


def store_of(env: Mapping[str, str], table: str) -> OnlineStore | None:
    """The store of a platform for commands that know no rows (erasing); None where it has none."""
    url = env.get("REDIS_URL", "")
    return OnlineStore(connect(url, 10), table, 0, 0) if url else None


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


class _unavailable:
    """What Redis raises becomes Unavailable."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        from redis.exceptions import RedisError

        if isinstance(error, RedisError | OSError):
            raise Unavailable(f"Redis (REDIS_URL): {in_a_line(error)}") from None
