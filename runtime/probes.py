"""Questions about readiness. Each answers False, never raises, while the server is not there."""

import socket
import ssl
import urllib.error
import urllib.request

_UNCHECKED = ssl._create_unverified_context()  # noqa: S323 - nothing is sent, and an impostor would gain nothing


def http_ok(url: str, timeout: float = 2) -> bool:
    """Whether a GET of `url`, a server of this platform, answers with a 2xx status. A certificate is not checked: it is of another name."""
    try:
        with urllib.request.urlopen(url, timeout=timeout, context=_UNCHECKED) as answer:  # noqa: S310
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
