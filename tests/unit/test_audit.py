"""The audit lists what is locked, and calls nothing clean that it could not check."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from runtime import audit
from runtime.audit import Package

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def service(answer: Any, status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A service that gives one answer to everything, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def test_every_lock_is_in_the_list() -> None:
    packages = audit.locked(ROOT)
    assert {package.ecosystem for package in packages} == {"PyPI", "crates.io", "Maven", "Go"}
    names = {(package.ecosystem, package.name) for package in packages}
    assert {
        ("PyPI", "apache-airflow"),
        ("PyPI", "confluent-kafka"),
        ("crates.io", "pyo3"),
        ("Maven", "org.apache.kafka:kafka_2.13"),
        ("Go", "github.com/minio/minio"),
    } <= names
    lines = [
        line for path in (ROOT / "requirements").glob("*.txt") for line in path.read_text().splitlines() if "==" in line and line[0] != " "
    ]
    assert len(lines) > 500
    assert {re_name(line) for line in lines} == {package.name for package in packages if package.ecosystem == "PyPI"}


def re_name(line: str) -> str:
    return line.split("==", maxsplit=1)[0].split("[", maxsplit=1)[0].strip().lower().replace("_", "-").replace(".", "-")


def test_the_list_is_cyclonedx() -> None:
    listed = audit.bill([Package("Maven", "org.apache.kafka:kafka_2.13", "4.1.0")])
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.6")
    assert listed["components"][0]["purl"] == "pkg:maven/org.apache.kafka/kafka_2.13@4.1.0"  # type: ignore[index]


PACKAGES = [Package("PyPI", "a", "1"), Package("crates.io", "b", "2")]


def test_what_is_known_is_told() -> None:
    with service({"results": [{}, {"vulns": [{"id": "RUSTSEC-1"}]}]}) as (address, asked):
        assert audit.advisories(PACKAGES, address) == {PACKAGES[1]: ["RUSTSEC-1"]}
    assert asked[0]["queries"][1] == {"version": "2", "package": {"name": "b", "ecosystem": "crates.io"}}


@pytest.mark.parametrize(("answer", "status"), [({"results": [{}]}, 200), ({}, 200), ([], 200), ({"results": [{}, {}]}, 503)])
def test_an_answer_that_is_not_for_everything_is_no_clean_result(answer: Any, status: int) -> None:
    with service(answer, status) as (address, _), pytest.raises(audit.NotChecked):
        audit.advisories(PACKAGES, address)


def test_no_answer_is_no_clean_result() -> None:
    with pytest.raises(audit.NotChecked, match="could not be asked"):
        audit.advisories(PACKAGES, "http://127.0.0.1:1")
