"""The enrichment API as a process of its own, without a lake: for tests and measurements that need no platform."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.collector_real_kafka import ROOT
from verify.ports import free_port

AWAY = {
    "LAKE_CATALOG_URL": "postgresql://nobody:x@127.0.0.1:1/lake",
    "LAKE_WAREHOUSE": "s3://lake/warehouse",
    "S3_ENDPOINT": "http://127.0.0.1:1",
    "S3_REGION": "us-east-1",
    "S3_ACCESS_KEY": "nobody",
    "S3_SECRET_KEY": "x",
}


@contextmanager
def enrichment_api(
    folder: Path, module: str = "enrichment_api.main", redis_url: str = "", **settings: str
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address and the process of an API with the model in `folder / "v1"`; `settings` are its own, without their prefix.

    What it logs is in `folder / "log"`. A traceback there fails whoever uses it.
    """
    port = free_port()
    own = {"PORT": str(port), "MODEL_DIR": str(folder / "v1"), "DATA_FILE": "none", "RELEASE_SECONDS": "0.1"} | settings
    env = {**os.environ, **AWAY, "REDIS_URL": redis_url, **{f"ENRICHMENT_API_{name}": value for name, value in own.items()}}
    url, log = f"http://127.0.0.1:{port}", folder / "log"
    with log.open("ab") as stream:
        process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=env, stderr=stream)
    try:
        _wait(url, process, log)
        yield url, process
    finally:
        process.terminate()
        process.wait(30)
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]
    assert process.returncode in (0, -15)


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    while process.poll() is None:
        try:
            if httpx.get(url + "/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"it ended before it was ready: {log.read_text()[-2000:]}")
