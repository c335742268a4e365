"""Several workers that share the ports of a collector, and the port for what only operators need."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import event
from tests.collector_load import Load, batch
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from verify.ports import free_port

WORKERS = 3
ADMIN = ("/metrics", "/openapi.json", "/docs")


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as running:
        yield running


@pytest.fixture
def server(broker: MockKafka, tmp_path: Path) -> Iterator[CollectorProcess]:
    with collector(broker.address, tmp_path, COLLECTOR_WORKERS=str(WORKERS), COLLECTOR_ID="c") as running:
        until(lambda: len(workers(running)) == WORKERS)
        running.wait()
        try:
            yield running
        finally:
            running.stop()
            until(lambda: not workers(running))


def until(true: Callable[[], bool]) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it never came true")


def workers(running: CollectorProcess) -> list[int]:
    """The process ids of the workers that listen."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()] if children.exists() else []


def metric(rest: str, name: str, **labels: str) -> float:
    """What one of the workers, whichever takes the connection, says of a metric."""
    text = httpx.get(rest + "/metrics").text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(one.value for one in samples if one.name == name and labels.items() <= one.labels.items())


def answer(rest: str, id: str) -> int:
    try:
        return httpx.post(rest + "/v1/events", content=batch(id, 1)[1:-1], auth=(KEY, ""), timeout=30).status_code
    except httpx.TransportError:
        return 0


def receipts(running: CollectorProcess) -> dict[str, str]:
    return {one.id: one.receipt.collector_id for one in (event.decode_raw(value) for _, value in running.written(event.RAW_TOPIC))}


def test_workers_share_both_ports_and_answer_for_all(server: CollectorProcess) -> None:
    for number in range(60):
        assert answer(server.rest, f"shared-rest-{number}") == 200
        with grpc.insecure_channel(server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            one = pb.Event(id=f"shared-grpc-{number}", source="load", type="purchase", subject="c", json=b'{"quantity":1,"amount_usd":9.5}')
            reply = CollectorStub(channel).Publish(
                pb.PublishRequest(events=[one]), metadata=[("authorization", f"Bearer {KEY}")], wait_for_ready=True, timeout=30
            )
        assert reply.accepted == 1
    who = receipts(server)
    for protocol in ("rest", "grpc"):
        names = [who[f"shared-{protocol}-{number}-0" if protocol == "rest" else f"shared-grpc-{number}"] for number in range(60)]
        assert len(set(names)) > 1
        assert set(names) <= {"c-1", "c-2", "c-3"}
    for _ in range(10):  # each of them knows what all took
        assert metric(server.rest, "headrace_collector_events_accepted_total", protocol="cloudevents") == 60
        assert metric(server.rest, "headrace_collector_events_accepted_total", protocol="grpc") == 60
    assert metric(server.rest, "headrace_collector_kafka_up") == 1


def test_a_worker_that_is_killed_comes_back_and_what_it_counted_stays(server: CollectorProcess) -> None:
    first = workers(server)
    for number in range(20):
        assert answer(server.rest, f"killed-{number}") == 200
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(set(workers(server)) - set(first)) == 1)
    until(lambda: all(answer(server.rest, "again") == 200 for _ in range(20)))
    assert metric(server.rest, "headrace_collector_events_accepted_total", protocol="cloudevents") >= 40
    until(lambda: metric(server.rest, "headrace_collector_kafka_up") == 1)  # the new one has only just begun to ask
    assert "a worker ended and is started again" in server.log.read_text()


def test_sigterm_ends_all_of_them_with_what_is_in_flight(broker: MockKafka, tmp_path: Path) -> None:
    async def work() -> None:
        load = Load(running.rest, KEY, 30, lambda name: batch(f"stopped-{name}", 5))
        await load.until(lambda answers: answers[200] > 300)
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 60) == 0
        await load.stop()
        assert set(load.answers) <= {0, 200, 503}
        assert {f"stopped-{name}-{number}" for name in load.done for number in range(5)} <= set(receipts(running))

    with collector(broker.address, tmp_path, COLLECTOR_WORKERS="2") as running:
        running.wait()
        pids = workers(running)
        asyncio.run(work())
        assert len(pids) == 2
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_spool_of_a_worker_that_was_killed_is_sent_by_the_next(tmp_path: Path) -> None:
    with (
        mock_kafka() as own,
        collector(own.address, tmp_path, COLLECTOR_WORKERS="2", COLLECTOR_SPOOL_DIR=str(tmp_path / "spool")) as running,
    ):
        until(lambda: len(workers(running)) == 2)
        running.wait()
        own.stop()
        until(lambda: httpx.get(running.rest + "/readyz").json() == {"status": "spooling"})
        done = [number for number in range(100) if answer(running.rest, f"spooled-{number}") == 200]
        assert len(done) == 100
        os.kill(workers(running)[0], signal.SIGKILL)
        own.start()
        until(lambda: {f"spooled-{number}-0" for number in done} <= set(receipts(running)))
        assert running.stop() == 0
        assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


def test_workers_end_when_the_process_that_started_them_is_killed(broker: MockKafka, tmp_path: Path) -> None:
    with collector(broker.address, tmp_path, COLLECTOR_WORKERS="2") as running:
        running.wait()
        pids = workers(running)
        running.process.kill()
        running.process.wait()
        until(lambda: not [pid for pid in pids if alive(pid)])


@pytest.mark.parametrize("count", ["1", "3"])
def test_the_first_answer_of_each_is_no_refusal(broker: MockKafka, tmp_path: Path, count: str) -> None:
    with collector(broker.address, tmp_path, COLLECTOR_WORKERS=count) as running:
        until(lambda: answer(running.rest, "first") != 0)
        assert {answer(running.rest, f"early-{number}") for number in range(200)} <= {0, 200}
        assert "early-199-0" in receipts(running)


def test_a_stop_that_comes_at_once_is_no_failure(broker: MockKafka, tmp_path: Path) -> None:
    with collector(broker.address, tmp_path, COLLECTOR_WORKERS="3") as running:
        until(lambda: len(workers(running)) == 3)
        assert running.stop() == 0


def alive(pid: int) -> bool:
    """Whether it runs: who has no parent that looks at its end stays as a zombie in some containers."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("setting", ["COLLECTOR_REST_PORT", "COLLECTOR_GRPC_PORT", "COLLECTOR_ADMIN_PORT"])
@pytest.mark.parametrize("count", ["1", "2"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_a_port_that_is_taken_is_one_clear_error(broker: MockKafka, tmp_path: Path, setting: str, count: str, shared: bool) -> None:
    with socket.socket() as taken:
        if shared:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with collector(broker.address, tmp_path, COLLECTOR_WORKERS=count, **{setting: str(port)}) as running:
            assert running.process.wait(60) == 1
        lines = [line for line in running.log.read_text().splitlines() if line.startswith("collector:")]
        assert len(lines) == 1
        assert lines[0].startswith(f"collector: cannot listen on 127.0.0.1:{port}")
        assert setting in lines[0]
        assert "Traceback" not in running.log.read_text()


@pytest.mark.parametrize("count", ["1", "2"])
def test_what_operators_need_can_have_a_port_of_its_own(broker: MockKafka, tmp_path: Path, count: str) -> None:
    port = free_port()
    with collector(broker.address, tmp_path, COLLECTOR_ADMIN_PORT=str(port), COLLECTOR_WORKERS=count) as running:
        running.wait()
        for path in ADMIN:
            assert httpx.get(running.rest + path).status_code == 404
            assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
        for path in ("/healthz", "/readyz"):
            assert httpx.get(running.rest + path).status_code == httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200
        assert answer(running.rest, "admin") == 200
        assert metric(f"http://127.0.0.1:{port}", "headrace_collector_events_accepted_total") == 1
        assert running.stop() == 0


def test_without_workers_no_files_of_metrics_are_written(broker: MockKafka, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    with collector(broker.address, tmp_path, TMPDIR=str(folder), COLLECTOR_ADMIN_PORT="") as running:
        running.wait()
        for path in ADMIN:
            assert httpx.get(running.rest + path).status_code == 200
        assert answer(running.rest, "single") == 200
        assert receipts(running)["single-0"] == "collector"
        assert list(folder.iterdir()) == []
        assert running.stop() == 0
    with collector(broker.address, tmp_path, TMPDIR=str(folder), COLLECTOR_WORKERS="2") as running:
        running.wait()
        assert len(list(folder.glob("headrace-*"))) == 1
        assert running.stop() == 0
    assert list(folder.glob("headrace-*")) == []
