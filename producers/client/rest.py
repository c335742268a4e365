"""Requests over HTTP."""

import asyncio
import gzip
import ssl
from collections.abc import Sequence

import httpx

from producers.client.batches import body_of
from producers.client.collector import BATCH_TYPE, PATH, no_answer
from producers.client.policy import Reply, read_answer

GZIP_FROM = 1024  # bytes of a body; smaller ones are sent as they are
_LEVEL = 1  # of gzip: events shrink about as well as at 9, in a fraction of the time


class Rest:
    """Sends to the collector at `url`. `timeout` is in seconds, for a whole request."""

    def __init__(self, url: str, write_key: str, *, timeout: float, compress: bool, user_agent: str, tls: ssl.SSLContext | None) -> None:
        self._url, self._timeout, self._compress = url, timeout, compress
        headers = {"user-agent": user_agent, "content-type": BATCH_TYPE}
        self._http = httpx.AsyncClient(base_url=url, auth=(write_key, ""), headers=headers, timeout=timeout, verify=tls or True)

    async def send(self, texts: Sequence[bytes]) -> Reply:
        """Returns once the events are durable. Raises RequestRefused."""
        body, headers = body_of(texts), {}
        if self._compress and len(body) > GZIP_FROM:
            body, headers = gzip.compress(body, _LEVEL, mtime=0), {"content-encoding": "gzip"}
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._http.post(PATH, content=body, headers=headers)
        except (httpx.TransportError, TimeoutError) as error:
            raise no_answer(self._url, error) from None
        return read_answer(response.status_code, response.content, response.headers.get("retry-after"), str(response.url))

    async def reset(self) -> None:
        """Nothing is kept from one request to the next."""

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
