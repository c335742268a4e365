"""MinIO, built from its Go module: no binary of it is published any more."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import provision
from runtime.component import Place, Program
from runtime.fetching import built_as_a_whole, digest_of, pip_target, run
from runtime.probes import http_ok

_MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"


class Minio:
    """The object store of the lake. Nothing here but this file knows that it is MinIO: everybody else speaks S3."""

    name = "minio"
    profile = "core"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """Build it: about four minutes on two cores. Go's own check-sum database vouches for the sources."""
        requirements = place.root / "requirements" / "go.txt"
        with built_as_a_whole(place.servers / "minio", f"{digest_of(requirements)} {_MODULE}") as fresh:
            if fresh is not None:
                _build(place, requirements, fresh, say)

    def configure(self, place: Place) -> None:
        """Everything is in its environment and its command."""

    def programs(self, place: Place) -> Sequence[Program]:
        """The server with its console."""
        host, env = place.env["BIND_HOST"], place.env
        address = f"{host}:{env['MINIO_PORT']}"
        command = [str(place.servers / "minio" / "minio"), "server", "--quiet", "--address", address]
        command += ["--console-address", f"{host}:{env['MINIO_CONSOLE_PORT']}", str(place.data(self.name))]
        return [
            Program(
                name=self.name,
                command=command,
                ready=lambda: http_ok(f"http://{address}/minio/health/ready"),
                environment={"MINIO_UPDATE": "off", "MINIO_REGION": env["S3_REGION"], "GOMEMLIMIT": "256MiB"},
                ports={"S3": "MINIO_PORT", "console": "MINIO_CONSOLE_PORT"},
                provision=lambda: provision.make_bucket(f"http://{address}", env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], env["S3_REGION"]),
                url=place.url("MINIO_CONSOLE_PORT"),
                login=f"{env['MINIO_ROOT_USER']} / {env['MINIO_ROOT_PASSWORD']}",
            )
        ]


def _build(place: Place, requirements: Path, fresh: Path, say: Callable[[str], None]) -> None:
    go = place.root / ".runtime" / "build" / "go"
    say("fetching the Go toolchain")
    pip_target(requirements, go / "toolchain", place.root)
    say("building from source (some minutes)")
    # Modules and objects stay between attempts, so a build that broke goes on; they go when it is done.
    env = {key: value for key, value in os.environ.items() if key not in ("GOROOT", "GOFLAGS")}
    env |= {"GOPATH": str(go / "path"), "GOCACHE": str(go / "cache"), "GOBIN": str(fresh), "GOFLAGS": "-modcacherw"}
    env |= {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    compiler = go / "toolchain" / "go" / "bin" / "go"
    run([str(compiler), "install", "-trimpath", "-ldflags", "-s -w", _MODULE], "building MinIO", env, log=go / "build.log")
    shutil.rmtree(go)
