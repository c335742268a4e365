"""Ports that nobody uses now."""

import socket


def free_port(host: str) -> int:
    """One that can be bound on `host`."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
