"""The server of gRPC: HTTP/2 (frames, headers, connection), calls on it, and the services that every server has."""

from collector.http2.connection import Bounds, Server

__all__ = ["Bounds", "Server"]
