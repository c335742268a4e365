"""A collector of one's own, as the process that a user starts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.collector_real_kafka import ROOT
from tests.kafka_reading import written
from verify.ports import free_port

KEY = "test-write-key"


class CollectorProcess:
    """`python -m collector.main`, with its addresses."""

    def __init__(self, bootstrap_servers: str, log: Path, **settings: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.rest = f"http://127.0.0.1:{(rest := free_port())}"
        self.grpc = f"127.0.0.1:{(grpc := free_port())}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COLLECTOR_")} | {
            "BIND_HOST": "127.0.0.1",
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "HEADRACE_PROFILE": "development",
            "HEADRACE_WRITE_KEY": KEY,
            "SCHEMAS_DIR": str(ROOT / "schemas"),
            "COLLECTOR_REST_PORT": str(rest),
            "COLLECTOR_GRPC_PORT": str(grpc),
            "COLLECTOR_PSEUDONYM_KEY": "a secret of the tests",
            "COLLECTOR_CORS_ORIGINS": "http://shop.example",
            "COLLECTOR_KEYS_FILE": str(log.parent / "keys.json"),
            **settings,
        }
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-m", "collector.main"], cwd=ROOT, env=environment, stderr=file, stdout=file)

    def wait(self, path: str = "/readyz") -> None:
        """Wait until it answers 200 there."""
        for _ in range(600):
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(self.rest + path, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"no 200 from {path}: {self.log.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def written(self, topic: str) -> list[tuple[bytes, bytes]]:
        """Key and value of all that is in `topic` now."""
        return written(self.bootstrap_servers, topic)


@contextmanager
def collector(bootstrap_servers: str, folder: Path, **settings: str) -> Iterator[CollectorProcess]:
    """A collector until the block ends."""
    running = CollectorProcess(bootstrap_servers, folder / f"collector-{free_port()}.log", **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()
