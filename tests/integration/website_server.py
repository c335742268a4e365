"""The shop page on a free port, for one test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from producers.website.app import shop


@contextmanager
def served_shop(collector_url: str, write_key: str, port: int = 0) -> Iterator[str]:
    """The address of a shop (on a free port, or on `port`) whose tracker sends to `collector_url`."""
    server = uvicorn.Server(uvicorn.Config(shop(collector_url, write_key), port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive(), "the shop did not start"
    host, bound = server.servers[0].sockets[0].getsockname()
    yield f"http://{host}:{bound}"
    server.should_exit = True
    thread.join()
