"""Whether the service in this container does its work: exit code 0 or 1, and one line that says why.

`ready URL`: it answers 200. `reads URL`: a consumer whose metrics say that it reads at least one partition and waits for nobody.
"""

import sys
import urllib.error
import urllib.request

_SECONDS = 4  # less than the health check's own patience


def main(kind: str, url: str) -> int:
    """One look."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - our own address
            body = answer.read().decode()
    except (OSError, urllib.error.URLError) as error:
        return _says(f"{url}: {error}")
    return _says(_idle(body) if kind == "reads" else "")


def _idle(metrics: str) -> str:
    """Why a consumer with these metrics does not work; empty where it does."""
    lines = metrics.splitlines()
    if "headrace_waiting 0.0" not in lines:
        return "it waits for something that it depends on"
    if not any(line.startswith("headrace_lag_messages{") for line in lines):
        return "it has no partition to read"
    return ""


def _says(problem: str) -> int:
    print(problem or "ok")
    return int(bool(problem))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
