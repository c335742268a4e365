"""Many connections that post to a collector, one request after another."""

import asyncio
import base64
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec

_PIECE = 65536
_CONNECTIONS_AT_ONCE = 100


def batch(name: str, count: int, size: int = 10) -> bytes:
    """A CloudEvents batch of `count` purchases `<name>-<n>`, each with about `size` bytes of padding."""
    return msgspec.json.encode(
        [
            {
                **{"specversion": "1.0", "id": f"{name}-{number}", "source": "load", "type": "purchase", "subject": "c"},
                "data": {"quantity": 1, "amount_usd": 9.5, "padding": "p" * size},
            }
            for number in range(count)
        ]
    )


class Load:
    """`connections` post what `body` gives for the name of each request, until `stop`.

    `answers` counts statuses, and 0 for connections that were refused or closed; `done` are the names of requests that got 200.
    """

    def __init__(self, rest: str, write_key: str, connections: int, body: Callable[[str], bytes]) -> None:
        self._to = urlsplit(rest)
        self._authorization = base64.b64encode(f"{write_key}:".encode()).decode()
        self._body = body
        self._opening = asyncio.Semaphore(_CONNECTIONS_AT_ONCE)
        self._stopping = False
        self._names = 0
        self.answers: Counter[int] = Counter()
        self.done: list[str] = []
        self._tasks = [asyncio.create_task(self._post()) for _ in range(connections)]

    async def stop(self) -> None:
        """Send nothing more, and wait for the answers."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def until(self, true: Callable[[Counter[int]], bool]) -> None:
        """Wait until the answers are so."""
        while not true(self.answers):
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.02)

    async def _post(self) -> None:
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopping:
            self._names += 1
            name = f"r{self._names}"
            try:
                if stream is None:
                    async with self._opening:
                        stream = await asyncio.open_connection(self._to.hostname, self._to.port)
                status, stays = await self._request(*stream, self._body(name))
            except (OSError, EOFError):
                status, stays = 0, False
            self.answers[status] += 1
            if status == 200:
                self.done.append(name)
            if not stays:
                if stream:
                    stream[1].close()
                stream = None
            if status != 200:
                await asyncio.sleep(0.05)
        if stream:
            stream[1].close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bool]:
        head = (
            f"POST /v1/events HTTP/1.1\r\nhost: {self._to.netloc}\r\nauthorization: Basic {self._authorization}\r\n"
            f"content-type: application/cloudevents-batch+json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        sending = asyncio.create_task(_send(writer, head.encode(), body))
        try:  # who is refused may be answered before the body is sent
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(answer.split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            early = not sending.done()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return int(answer.split(b" ", 2)[1]), not early and b"connection: close" not in answer


async def _send(writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
    writer.write(head)
    for start in range(0, len(body), _PIECE):
        writer.write(body[start : start + _PIECE])
        await writer.drain()
