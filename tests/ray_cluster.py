"""A Ray cluster of two machines on this one, in a network of its own: Ray listens on every address that there is, and here there is only
the loopback. Run by `unshare --net`; prints what each training said, as JSON.

    python -m tests.ray_cluster PYTHON RUN ANOTHER_RUN SLOW_RUN
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_HEAD, _OTHER = "127.0.0.2", "127.0.0.3"  # Ray takes 127.0.0.1 for a mistake
_PORT = 6389
_PATIENCE = 120.0


def main(python: str, alone: str, together: str, losing: str) -> None:
    """Train with one machine, with two, and with two of which one is lost."""
    _raise_loopback()
    with tempfile.TemporaryDirectory(prefix="ray") as folder, tempfile.TemporaryDirectory() as seen:
        os.environ |= {"SEEN": seen, "PYTHONPATH": os.getcwd(), "RAY_USAGE_STATS_ENABLED": "0"}
        with _machine(python, _HEAD, f"--head --port={_PORT} --include-dashboard=false --temp-dir={folder}"):
            _wait_for(python, 1)
            said = [_train(python, alone).communicate()[0]]
            with _machine(python, _OTHER, f"--address={_HEAD}:{_PORT}") as other:
                _wait_for(python, 2)
                said.append(_train(python, together).communicate()[0])
                training = _train(python, losing)
                until = time.monotonic() + _PATIENCE
                while training.poll() is None and time.monotonic() < until and not list(Path(seen).glob(f"{_OTHER}-*")):
                    time.sleep(0.05)
                if not list(Path(seen).glob(f"{_OTHER}-*")):
                    sys.exit("no trial ran on the machine that was to be lost")
                _end(other)
                said.append(training.communicate()[0])
    print(json.dumps([json.loads(each.splitlines()[-1]) if each.strip() else None for each in said]))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name, flags = b"lo".ljust(16, b"\0"), 0x1 | 0x40  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", name, flags))  # SIOCSIFFLAGS


@contextmanager
def _machine(python: str, address: str, options: str) -> Iterator[psutil.Process]:
    ray = str(Path(python).parent / "ray")
    command = [ray, "start", "--block", f"--node-ip-address={address}", "--num-cpus=1", "--object-store-memory=100000000", *options.split()]
    process = psutil.Process(subprocess.Popen(command, stdout=sys.stderr).pid)
    try:
        yield process
    finally:
        _end(process)


def _end(process: psutil.Process) -> None:
    """With all below it, as a machine that is switched off."""
    if process.is_running():
        for each in [*process.children(recursive=True), process]:
            each.kill()
        process.wait()


def _wait_for(python: str, machines: int) -> None:
    check = f"import ray; ray.init('{_HEAD}:{_PORT}', log_to_driver=False); print(len([n for n in ray.nodes() if n['Alive']]))"
    until = time.monotonic() + _PATIENCE
    while True:
        done = subprocess.run([python, "-c", check], capture_output=True, text=True, check=False)
        if done.stdout.strip() == str(machines):
            return
        if time.monotonic() > until:
            sys.exit(f"{machines} machines did not come: {done.stdout}{done.stderr[-2000:]}")
        time.sleep(0.5)


def _train(python: str, run: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "ML_RAY_ADDRESS": f"{_HEAD}:{_PORT}"}
    return subprocess.Popen([python, "-m", "ml", "train", "--run", run, "--unit", "churn"], env=env, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
