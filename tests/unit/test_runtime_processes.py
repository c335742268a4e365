"""Which processes are a platform's, although some overwrite their own environment."""

import subprocess
import time
from pathlib import Path

import psutil

from runtime.processes import marked
from runtime.supervisor import MARK


def test_a_process_without_environment_belongs_to_the_platform_of_its_parent(tmp_path: Path) -> None:
    command = ["sh", "-c", "env -i sleep 60 & wait"]
    with subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", MARK: str(tmp_path)}) as parent:
        try:
            deadline = time.monotonic() + 20
            while not (named := [each for each in psutil.Process(parent.pid).children() if each.name() == "sleep"]):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            [child] = named
            assert MARK not in child.environ()
            assert marked(child, tmp_path)
            assert not marked(child, tmp_path / "other")
        finally:
            for process in [*psutil.Process(parent.pid).children(), psutil.Process(parent.pid)]:
                process.kill()
