"""The collector with Kafka down or frozen, at more load than it can serve, with a full disk, killed and stopped."""

import asyncio
import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import dead_letter, event
from tests.collector_load import Load, batch
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import RealKafka

RAW, DEAD = event.RAW_TOPIC, "dead-letter.collector"
MAX_RSS = 512 * 1024  # kB
TAKEN_LATER = {200, 429, 503}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    one = RealKafka(tmp_path_factory.mktemp("kafka"))
    one.start()
    yield one
    one.kill()


@pytest.fixture
def kafka(broker: RealKafka) -> Iterator[RealKafka]:
    """Running at the beginning of a test, without a message in it, and running at its end."""
    broker.empty()
    yield broker
    if broker.running:
        broker.signal(signal.SIGCONT)
    else:
        broker.start()


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 240)

    asyncio.run(bounded())


def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError(f"it never came true: {what}")


def spooling(running: CollectorProcess) -> bool:
    return bool(httpx.get(running.rest + "/readyz").json() == {"status": "spooling"})


def drained(running: CollectorProcess) -> bool:
    return bool(httpx.get(running.rest + "/readyz").json() == {"status": "ready"})


def peak(pid: int) -> int:
    """The most memory that a process ever had, in kB."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def post(running: CollectorProcess, events: list[dict[str, Any]]) -> httpx.Response:
    return httpx.post(
        running.rest + "/v1/events",
        content=json.dumps(events),
        headers={"content-type": "application/cloudevents-batch+json"},
        auth=(KEY, ""),
        timeout=60,
    )


def purchase(id: str, quantity: int = 1) -> dict[str, Any]:
    return {"id": id, "source": "load", "type": "purchase", "subject": "c", "data": {"quantity": quantity, "amount_usd": 9.5}}


def ids(running: CollectorProcess) -> set[str]:
    return {event.decode_raw(value).id for _, value in running.written(RAW)}


@asynccontextmanager
async def loaded(running: CollectorProcess, connections: int, body: Callable[[str], bytes]) -> AsyncIterator[Load]:
    load = Load(running.rest, KEY, connections, body)
    try:
        yield load
    finally:
        await load.stop()


def test_events_survive_outages_of_kafka_and_kills_of_the_collector(kafka: RealKafka, tmp_path: Path) -> None:
    """Every message goes through the spool: what was told to be durable is there in order, dead letters with one id each."""
    settings = {"COLLECTOR_SPOOL_DIR": str(tmp_path / "spool")}

    def send(running: CollectorProcess, numbers: range) -> None:
        for number in numbers:
            answer = post(running, [purchase("same", number), purchase(f"one-{number}"), {"id": f"bad-{number}", "source": "load"}])
            assert (answer.status_code, answer.json()["accepted"]) == (200, 2), answer.text

    kafka.kill()
    with collector(kafka.address, tmp_path, **settings) as first:
        first.wait()
        assert spooling(first)
        assert httpx.get(first.rest + "/healthz").json() == {"status": "alive"}
        send(first, range(50))
        first.process.kill()
        first.process.wait()
    with collector(kafka.address, tmp_path, **settings) as second:
        second.wait()
        send(second, range(50, 100))
        kafka.start()
        until(lambda: drained(second), "the spool is sent")
        send(second, range(100, 110))
        raw = [event.decode_raw(value) for _, value in second.written(RAW)]
        letters = [dead_letter.decode(value) for _, value in second.written(DEAD)]
        assert second.stop() == 0

    same = [json.loads(bytes(one.data))["quantity"] for one in raw if one.id == "same"]
    assert list(dict.fromkeys(same)) == list(range(110))
    assert {one.id for one in raw} >= {f"one-{number}" for number in range(110)}
    for number in range(110):
        assert len({letter.dead_letter_id for letter in letters if letter.id == f"bad-{number}"}) == 1
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


def test_nothing_answered_is_lost_when_the_collector_is_killed_again_and_again(kafka: RealKafka, tmp_path: Path) -> None:
    """Kills come while it spools and while it sends what it spooled, under a load that goes on."""
    chance = random.Random(4)
    settings = {"COLLECTOR_SPOOL_DIR": str(tmp_path / "spool")}
    done: list[Load] = []

    async def lives() -> None:
        for life in range(6):
            with collector(kafka.address, tmp_path, **settings) as running:
                await asyncio.to_thread(running.wait)
                if life in (1, 4):
                    kafka.kill()
                load = Load(running.rest, KEY, 20, lambda name, life=life: batch(f"life{life}-{name}", 10))  # type: ignore[misc]
                await load.until(lambda answers: answers[200] > 100)
                if life in (2, 5):
                    await asyncio.to_thread(kafka.start)
                await asyncio.sleep(chance.random())
                running.process.kill()
                await load.stop()
                done.append(load)

    in_loop(lives)
    with collector(kafka.address, tmp_path, **settings) as last:
        last.wait()
        until(lambda: drained(last), "the spool is sent")
        answered = {f"life{life}-{name}-{number}" for life, load in enumerate(done) for name in load.done for number in range(10)}
        assert len(answered) > 6 * 1000
        assert answered - ids(last) == set()


@pytest.mark.parametrize("limit", ["disk", "setting"])
def test_a_full_spool_is_503_and_what_was_answered_arrives(kafka: RealKafka, tmp_path: Path, limit: str) -> None:
    kafka.kill()
    folder = tmp_path / "spool"
    folder.mkdir()
    settings = {"COLLECTOR_SPOOL_DIR": str(folder)}
    if limit == "disk":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=True)
    else:
        settings["COLLECTOR_SPOOL_MAX_BYTES"] = "10000000"
    try:
        with collector(kafka.address, tmp_path, **settings) as running:
            running.wait()

            async def fill() -> None:
                async with loaded(running, 8, lambda name: batch(f"{limit}-{name}", 100, 1000)) as load:
                    await load.until(lambda answers: answers[503] > 30)
                    assert httpx.get(running.rest + "/readyz").status_code == 503
                    assert httpx.get(running.rest + "/healthz").status_code == 200
                assert set(load.answers) == {200, 503}
                kafka.start()
                await asyncio.to_thread(until, lambda: drained(running), "the spool is sent")
                assert {f"{limit}-{name}-{number}" for name in load.done for number in range(100)} - ids(running) == set()

            in_loop(fill)
            assert post(running, [purchase("after")]).status_code == 200
            assert running.stop() == 0
    finally:
        if limit == "disk":
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize(
    ("shape", "fault", "spool"),
    [
        ("large", "frozen", False),
        ("small", "frozen", False),
        ("large", "stopped", False),
        ("large", "frozen", True),
        ("small", "stopped", True),
    ],
)
def test_memory_is_bounded_and_it_comes_back(kafka: RealKafka, tmp_path: Path, shape: str, fault: str, spool: bool) -> None:
    """Ten times what it may hold is offered at a time, by clients that come again at once; afterwards it serves again by itself."""
    connections, events, padding = (1400, 450, 850) if shape == "large" else (1000, 500, 0)
    body = batch(shape, events, padding)
    settings = {"COLLECTOR_SPOOL_DIR": str(tmp_path / "spool")} if spool else {}

    async def work() -> None:
        async with loaded(running, connections, lambda _: body) as load:
            await load.until(lambda answers: answers[200] > 20)
            if fault == "frozen":
                kafka.signal(signal.SIGSTOP)
            else:
                kafka.kill()
            if not spool:
                await load.until(lambda answers: answers[503] > 3 * connections)
            else:
                seen = load.answers[200]
                await load.until(lambda answers: answers[200] > seen + 200)
            assert httpx.get(running.rest + "/healthz", timeout=60).status_code == 200
        before = load.answers.copy()
        if fault == "frozen":
            kafka.signal(signal.SIGCONT)
        else:
            await asyncio.to_thread(kafka.start)
        for _ in range(100):
            if (await asyncio.to_thread(post, running, [purchase("back")])).status_code == 200:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError("it does not serve again")
        await asyncio.to_thread(until, lambda: drained(running), "Kafka takes events, and the spool is sent")
        assert set(before) - {0} <= TAKEN_LATER, before

    with collector(kafka.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="5", **settings) as running:
        running.wait()
        in_loop(work)
        assert 0 < peak(running.process.pid) < MAX_RSS
        print("peak", peak(running.process.pid))
        assert running.stop() == 0


def test_memory_is_bounded_with_grpc_too(kafka: RealKafka, tmp_path: Path) -> None:
    """Six hundred clients with requests as large as they may be, while Kafka is frozen."""
    data = json.dumps({"quantity": 1, "amount_usd": 9.5, "padding": "p" * 850}).encode()
    request = pb.PublishRequest(
        events=[pb.Event(id=str(number), source="load", type="purchase", subject="c", json=data) for number in range(450)]
    )
    codes: Counter[grpc.StatusCode] = Counter()

    async def work() -> None:
        stopping = asyncio.Event()

        async def publish() -> None:
            async with grpc.aio.insecure_channel(running.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                while not stopping.is_set():
                    try:
                        await CollectorStub(channel).Publish(request, metadata=[("authorization", f"Bearer {KEY}")])
                        codes[grpc.StatusCode.OK] += 1
                    except grpc.aio.AioRpcError as error:
                        codes[error.code()] += 1
                        await asyncio.sleep(0.1)

        clients = [asyncio.create_task(publish()) for _ in range(600)]
        while codes[grpc.StatusCode.OK] < 20:
            await asyncio.sleep(0.02)
        kafka.signal(signal.SIGSTOP)
        while codes[grpc.StatusCode.UNAVAILABLE] < 1200:
            await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.gather(*clients)
        kafka.signal(signal.SIGCONT)
        await asyncio.to_thread(until, lambda: post(running, [purchase("back")]).status_code == 200, "it serves again")

    with collector(kafka.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="5") as running:
        running.wait()
        in_loop(work)
        assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert 0 < peak(running.process.pid) < MAX_RSS
        print("peak", peak(running.process.pid), codes)
        assert running.stop() == 0


@pytest.mark.parametrize("state", ["up", "frozen", "stopped", "frozen-spool"])
def test_sigterm_finishes_what_is_in_flight(kafka: RealKafka, tmp_path: Path, state: str) -> None:
    settings = {"COLLECTOR_SPOOL_DIR": str(tmp_path / "spool")} if state == "frozen-spool" else {}
    with collector(kafka.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="3", **settings) as running:
        running.wait()

        async def work() -> None:
            async with loaded(running, 50, lambda name: batch(f"term-{state}-{name}", 10)) as load:
                await load.until(lambda answers: answers[200] > 200)
                if "frozen" in state:
                    kafka.signal(signal.SIGSTOP)
                elif state == "stopped":
                    kafka.kill()
                running.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(running.process.wait, 60) == 0
            assert set(load.answers) - {0} <= {200, 503}
            if "frozen" in state:
                kafka.signal(signal.SIGCONT)
            elif state == "stopped":
                await asyncio.to_thread(kafka.start)
            if state == "frozen-spool":
                with collector(kafka.address, tmp_path, **settings) as later:
                    await asyncio.to_thread(later.wait)
                    await asyncio.to_thread(until, lambda: drained(later), "the spool is sent")
            assert {f"term-{state}-{name}-{number}" for name in load.done for number in range(10)} - ids(running) == set()

        in_loop(work)
