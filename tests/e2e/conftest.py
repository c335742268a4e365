"""What the end-to-end tests share: the platform that they run on, as its user and as its supervisor see it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trino
from elasticsearch import Elasticsearch

from runtime.component import Place
from runtime.platform import place_at
from runtime.supervisor import Supervisor

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("collector", "enrichment-api", "enricher", "realtime-loader", "batch-loader")


@pytest.fixture
def place() -> Place:
    """The platform of this run."""
    return place_at(ROOT / os.environ["HEADRACE_ENV_FILE"])


def pid_of(place: Place, service: str) -> int:
    """The process of a service, 0 while it has none."""
    if in_containers():
        found = run(["docker", "compose", "ps", "--quiet", service]).stdout.strip()
        asked = run(["docker", "inspect", "--format", "{{.State.Pid}}", found]).stdout.strip() if found else ""
        return int(asked) if asked.isdigit() else 0
    return Supervisor(place).states()[service].pid


def take_up_the_plan() -> None:
    """What a person does after a change of the tracking plan."""
    commands = [["make", "up"]]
    if in_containers():
        commands = [["docker", "compose", "restart", *SERVICES], ["docker", "compose", "up", "--detach", "--wait", *SERVICES]]
    for command in commands:
        done = run(command)
        assert done.returncode == 0, done.stdout[-3000:]


def in_containers() -> bool:
    """Whether the platform of this run is that of docker-compose.yml (`make test-compose`)."""
    return "COMPOSE_PROJECT_NAME" in os.environ


@pytest.fixture
def search() -> Elasticsearch:
    """The running Elasticsearch."""
    return Elasticsearch(os.environ["ELASTICSEARCH_URL"], request_timeout=30)


def headrace(*arguments: str) -> list[str]:
    """The command line of a `headrace` command."""
    return [sys.executable, "-m", "cli", *arguments]


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout; what it prints is in the result, both streams together."""
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=800, check=False, **more)


def post_event(event: dict[str, Any]) -> dict[str, Any]:
    """Send one CloudEvent to the collector and return its reply."""
    answer = httpx.post(
        f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/events",
        json={"specversion": "1.0", **event},
        headers={"content-type": "application/cloudevents+json"},
        auth=(os.environ["HEADRACE_WRITE_KEY"], ""),
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def rows(sql: str) -> list[list[Any]]:
    """What Trino answers."""
    host, port = os.environ["TRINO_URL"].removeprefix("http://").rsplit(":", 1)
    connection = trino.dbapi.connect(host=host, port=int(port), user=os.environ["TRINO_USER"])  # type: ignore[no-untyped-call]
    try:
        cursor = connection.cursor()
        cursor.execute(sql)
        found: list[list[Any]] = cursor.fetchall()
        return found
    finally:
        connection.close()


def eventually(look: Callable[[], Any], wanted: Callable[[Any], bool] = bool, seconds: float = 60) -> Any:
    """What `look` returns once it is `wanted`; what it last returned, where that does not come about."""
    deadline = time.monotonic() + seconds
    while not wanted(found := look()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found
