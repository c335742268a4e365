"""A Redis of one's own, as `make up` starts it, in a folder, on a free port."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from runtime.preflight import ensure_packages
from runtime.servers.redis import PACKAGES, config, link
from verify.ports import free_port

PASSWORD = "only-here"


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Its URL, and its process."""
    ensure_packages(PACKAGES, print)
    port = port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    conf, url = folder / "redis.conf", f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
    conf.write_text(config("127.0.0.1", str(port), PASSWORD, str(folder)))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([str(link(folder)), str(conf)], stdout=log, stderr=log)
    try:
        with Redis.from_url(url) as client:
            while process.poll() is None:
                try:
                    client.ping()
                    break
                except ConnectionError:
                    pass
                except Exception as error:
                    if "refused" not in str(error) and "loading" not in str(error).lower():
                        raise
        assert process.poll() is None, (folder / "log").read_text()
        yield url, process
    finally:
        process.kill()
        process.wait(30)
