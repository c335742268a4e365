"""Uvicorn as the collector wants it: its errors are JSON too, and signals are left to us."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    _Base = asyncio.Protocol
else:
    _Base = AutoHTTPProtocol  # httptools', where that is installed

_NOT_HTTP = msgspec.json.encode({"code": "bad_request", "message": "this is not an HTTP request"})


class _Protocol(_Base):
    transport: Any

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - the same words for every reason
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(_NOT_HTTP) + _NOT_HTTP)
        self.transport.close()


class Server(uvicorn.Server):
    """An HTTP server that runs until its `should_exit` is set; then it finishes what is in flight, for at most `grace` seconds."""

    def __init__(self, app: Any, grace: float) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it would tell of every malformed request
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                lifespan="off",
                ws="none",
                access_log=False,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=int(grace),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: REST and gRPC stop together."""
        yield
