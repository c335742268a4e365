"""The file of the write keys, looked at each second, so that a made or revoked key is effective at once."""

import asyncio
from pathlib import Path

import structlog

from collector import metrics
from collector.senders import Senders
from headrace import keyfile

_LOOK_EVERY = 1.0  # seconds

_log = structlog.get_logger()


class KeyWatch:
    """Keeps `senders` in step with the file at `path`. A file that cannot be read leaves the keys as they are."""

    def __init__(self, path: Path, senders: Senders) -> None:
        self._path = path
        self._senders = senders
        self._seen: keyfile.Signature | str = "not yet"
        self._problem: str | None = None

    def look(self) -> None:
        """Read the file where it is another than last time. Blocks, shortly."""
        try:
            if keyfile.signature(self._path) == self._seen and self._problem is None:
                return
            keys, self._seen = keyfile.read(self._path)
        except (keyfile.Unreadable, OSError) as error:
            if str(error) != self._problem:
                _log.error("the write keys cannot be read: those known before go on", why=str(error))
            self._problem = str(error)
        else:
            self._problem = None
            self._senders.use(keys)
            _log.info("write keys read", active=sum(key.active for key in keys), revoked=sum(not key.active for key in keys))
        metrics.KEYS_READABLE.set(self._problem is None)

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await asyncio.to_thread(self.look)
