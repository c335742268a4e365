"""Ports that nobody uses now, and that nobody is given meanwhile."""

import os
import random
import socket
from itertools import cycle

# Below those that the kernel gives to who connects (ip_local_port_range): one of these may be taken between our look and its use.
_ALL = range(20_000, 32_000)
_WORKERS = 8  # tests side by side look at other ports each
_mine = [port for port in _ALL if port % _WORKERS == int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % _WORKERS]
_next = cycle(random.sample(_mine, len(_mine)))


def free_port(host: str = "127.0.0.1") -> int:
    """One that can be bound on `host`, and that this process has not been given of late."""
    while True:
        port = next(_next)
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
