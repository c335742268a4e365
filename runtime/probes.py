"""Questions about readiness. Each answers False, never raises, while the server is not there."""

import socket
import urllib.error
import urllib.request


def http_ok(url: str, timeout: float = 2) -> bool:
    """Whether a GET of `url` answers with a 2xx status."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310
            return 200 <= int(answer.status) < 300
    except (OSError, ValueError, urllib.error.URLError):
        return False


def port_open(host: str, port: int, timeout: float = 0.5) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=timeout):
            return True
    except OSError:
        return False
