"""The SDK against the real collector, while either of them is killed: every event that was taken is in Kafka."""

import asyncio
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from headrace import event
from producers.client import AsyncClient, Client, policy
from producers.client.spool import Spool
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector

ROOT = Path(__file__).parents[2]
KINDS = pytest.mark.parametrize("kind", ["rest", "grpc"])
PURCHASE = {"quantity": 1, "amount_usd": 9.99}


@pytest.fixture
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as running:
        yield running


def address(server: CollectorProcess, kind: str) -> str:
    return server.rest if kind == "rest" else server.grpc


@contextmanager
def successor(broker: MockKafka, folder: Path, dead: CollectorProcess) -> Iterator[CollectorProcess]:
    """A collector at the addresses of one that is no more."""
    ports = {"COLLECTOR_REST_PORT": dead.rest.rpartition(":")[2], "COLLECTOR_GRPC_PORT": dead.grpc.rpartition(":")[2]}
    with collector(broker.address, folder, **ports) as running:
        running.rest, running.grpc = dead.rest, dead.grpc
        running.wait()
        yield running


def options(kind: str, **more: Any) -> dict[str, Any]:
    return {"source": "sdk", "transport": kind, "block_seconds": None, "max_queue_events": 2000} | more


def arrived(server: CollectorProcess) -> list[event.RawEvent]:
    return [event.decode_raw(value) for _, value in server.written(event.RAW_TOPIC)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "LONGEST_WAIT", 1.0)


@KINDS
def test_events_are_in_kafka_once_flushed(broker: MockKafka, tmp_path: Path, kind: str) -> None:
    refused: list[tuple[str, str]] = []
    with collector(broker.address, tmp_path) as server:
        server.wait()
        told = options(kind, on_rejected=lambda one, reason, _: refused.append((one.id, reason)))
        with Client(address(server, kind), KEY, **told) as client:
            sent = [client.track("purchase", PURCHASE | {"order_id": str(number)}, subject="c1") for number in range(1500)]
            bad = client.track("wish_upon_a_star", {}, subject="c1")
            assert client.flush(60) == 0
            assert client.stats() == (1500, 1, 0, 0, 0, None)
        found = {one.id: one for one in arrived(server)}
        assert set(found) == set(sent)
        assert refused == [(bad, "unknown_type")]
        one = found[sent[3]]
        assert (one.source, one.subject, bytes(one.data)) == ("sdk", "c1", b'{"quantity":1,"amount_usd":9.99,"order_id":"3"}')
        assert one.receipt.protocol == ("cloudevents" if kind == "rest" else "grpc")
        assert "headrace-python/" in (one.receipt.user_agent or "")


@KINDS
@pytest.mark.parametrize("shell", ["threads", "asyncio"])
def test_a_killed_collector_costs_nothing(broker: MockKafka, tmp_path: Path, kind: str, shell: str) -> None:
    """It is killed amid requests, and another one takes its place."""
    with collector(broker.address, tmp_path) as first:
        first.wait()
        enough, target = threading.Event(), address(first, kind)
        more = options(kind, max_batch_events=50)

        def send() -> list[str]:
            with Client(target, KEY, **more) as client:
                sent = [_noting(enough, number, client.track("purchase", PURCHASE, subject="c")) for number in range(20_000)]
                assert client.flush(100) == 0
                assert client.stats().retried > 0
                return sent

        async def send_async() -> list[str]:
            async with AsyncClient(target, KEY, **more) as client:
                sent = [_noting(enough, number, await client.track("purchase", PURCHASE, subject="c")) for number in range(20_000)]
                assert await client.flush(100) == 0
                assert client.stats().retried > 0
                return sent

        sent: list[str] = []
        work = threading.Thread(target=lambda: sent.extend(send() if shell == "threads" else asyncio.run(send_async())))
        work.start()
        assert enough.wait(60)
        first.process.kill()
        first.process.wait()
        with successor(broker, tmp_path, first) as second:
            work.join(120)
            assert len(set(sent)) == 20_000
            assert {one.id for one in arrived(second)} == set(sent)


def _noting(enough: threading.Event, number: int, id: str) -> str:
    if number == 6000:
        enough.set()
    return id


PRODUCER = """if True:
    import sys
    from producers.client import Client
    kind, target, key, folder = sys.argv[1:]
    client = Client(target, key, source="sdk", transport=kind, spool_dir=folder, durable=True)
    number = 0
    while True:
        print(client.track("purchase", {"quantity": 1, "amount_usd": 9.99}, subject="c"), flush=True)
"""


@KINDS
def test_a_killed_producer_loses_nothing_that_was_on_disk(broker: MockKafka, tmp_path: Path, kind: str) -> None:
    """Killed three times: while the collector is up, and twice while it is away. The last one finds all of it in the spool."""
    folder, handed = tmp_path / "spool", list[str]()
    with collector(broker.address, tmp_path) as first:
        first.wait()
        handed += _killed_producer(kind, first, folder, 0.5)
    for _ in range(2):
        handed += _killed_producer(kind, first, folder, 0.3)
    assert len(set(handed)) == len(handed) > 30
    spool = Spool(folder, 10**9)
    assert spool.records > 0
    spool.close()
    with successor(broker, tmp_path, first) as second:
        with Client(address(second, kind), KEY, **options(kind, spool_dir=folder)) as client:
            assert client.flush(60) == 0
            assert client.stats().spooled == 0
        assert {one.id for one in arrived(second)} >= set(handed)


def _killed_producer(kind: str, server: CollectorProcess, folder: Path, seconds: float) -> list[str]:
    """The ids for which `track` returned in a process that is killed after its first event and some time."""
    command = [sys.executable, "-c", PRODUCER, kind, address(server, kind), KEY, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        first = process.stdout.readline().strip()
        reader: list[str] = []
        thread = threading.Thread(target=lambda: reader.extend(process.stdout or ()))
        thread.start()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        thread.join(30)
    assert process.returncode == -signal.SIGKILL
    return [first, *(line.strip() for line in reader if line.endswith("\n"))]


@KINDS
def test_what_kafka_cannot_take_is_sent_when_it_is_back(broker: MockKafka, tmp_path: Path, kind: str) -> None:
    with collector(broker.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="0.5") as server:
        server.wait()
        with Client(address(server, kind), KEY, **options(kind)) as client:
            broker.stop()
            sent = [client.track("purchase", PURCHASE, subject="c") for _ in range(700)]
            while client.stats().retried < 2:
                assert client.flush(0.2) == 700
            broker.start()
            assert client.flush(100) == 0
        assert {one.id for one in arrived(server)} == set(sent)


def test_a_smaller_limit_of_the_server_is_learned(broker: MockKafka, tmp_path: Path) -> None:
    # The linger holds answers back, so that a stream fails while the requests before the one that is too large are still under way.
    limits = {"COLLECTOR_MAX_BATCH_EVENTS": "60", "COLLECTOR_MAX_REQUEST_BYTES": "9000", "COLLECTOR_LINGER_MS": "50"}
    with collector(broker.address, tmp_path, **limits) as server:
        server.wait()
        for kind, more in (("rest", {"compress": False}), ("grpc", {})):
            with Client(address(server, kind), KEY, **options(kind, **more)) as client:
                sent = [client.track("purchase", PURCHASE, subject="c") for _ in range(1000)]
                assert client.flush(100) == 0
                assert client.stats()[:2] == (1000, 0)
            assert {one.id for one in arrived(server)} >= set(sent)


def test_the_examples_of_the_readme_run(broker: MockKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "producers" / "client" / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert CliRunner().invoke(app, ["schemas", "python", "--out", "my_events.py"]).exit_code == 0
    with collector(broker.address, tmp_path) as server:
        server.wait()
        for block in blocks:
            exec(block.replace("http://127.0.0.1:8000", server.rest).replace("<write key>", KEY), {})  # noqa: S102
        found = arrived(server)
    assert sorted(one.type for one in found) == ["page_view", "purchase", "purchase", "purchase"]
    assert {one.source for one in found} == {"my-app"}
