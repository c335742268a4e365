"""The examples of docs/clients.md and the README do what they say, as they stand there."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.collector_found import raws
from tests.collector_mock_kafka import mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^##+ (.*)$", re.MULTILINE)
CLIENTS = (ROOT / "docs" / "clients.md").read_text()
README = (ROOT / "README.md").read_text()

# What each example sends, in the order of the document.
SENDS = {
    "Segment": ["identify", "purchase"],
    "RudderStack": ["identify", "purchase"],
    "CloudEvents": ["purchase"] * 4,
    "OpenTelemetry logs": ["log", "purchase"],
    "gRPC": ["purchase"] * 3,
    "Data as a protobuf message": ["purchase"],
}


def examples(text: str) -> list[tuple[str, str]]:
    """Heading and code of each Python example."""
    return [(_HEADING.findall(text[: block.start()])[-1], block[1]) for block in _BLOCK.finditer(text)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CollectorProcess]:
    with mock_kafka() as broker, collector(broker.address, tmp_path) as running:
        running.wait()
        yield running


def run(code: str, server: CollectorProcess, folder: Path) -> str:
    """What it and the collector said meanwhile: an SDK that gives events up logs it, and ends well."""
    path = folder / "example.py"
    path.write_text(code.replace("http://127.0.0.1:8000", server.rest).replace("127.0.0.1:50051", server.grpc))
    environment = os.environ | {"HEADRACE_WRITE_KEY": KEY, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, path], cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False)
    told = f"{done.stderr.decode()}\n{server.log.read_text()}"
    assert done.returncode == 0, told
    return told


def test_every_example_is_one_that_is_run() -> None:
    assert [heading for heading, _ in examples(CLIENTS)] == list(SENDS)


@pytest.mark.parametrize(("heading", "code"), examples(CLIENTS), ids=lambda one: one if len(one) < 30 else "")
def test_an_example_of_the_clients_page(server: CollectorProcess, tmp_path: Path, heading: str, code: str) -> None:
    told = run(code, server, tmp_path)
    found = raws(server, lambda _: True)
    assert sorted(of.type for of in found) == SENDS[heading], told
    assert {of.subject for of in found if of.type == "purchase"} == {"customer-7"}
    assert server.written("dead-letter.collector") == []


@pytest.mark.parametrize("code", [code for _, code in examples(README)], ids=["Segment", "our own client", "gRPC"])
def test_an_example_of_the_readme(server: CollectorProcess, tmp_path: Path, code: str) -> None:
    told = run(code, server, tmp_path)
    assert [of.type for of in raws(server, lambda _: True)] == ["purchase"], told
