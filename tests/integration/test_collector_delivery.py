"""What `Outbox.put` promises holds through every fault: what it returned for is in Kafka, and it always answers."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from collector.line import DEAD_LETTER_TOPIC, Line, NativeLine, PythonLine
from collector.outbox import Outbox
from headrace.dead_letter import Unavailable
from headrace.event import RAW_TOPIC
from tests import kafka_reading
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_real_kafka import RealKafka

RETRIED = (6, 7, 19, 20)  # not the leader, timed out, too few replicas
FINAL = (10, 29, 87)  # too large, not allowed, invalid record


@pytest.fixture(params=[PythonLine, NativeLine])
def line(request: pytest.FixtureRequest) -> type[Line]:
    """Each client that the outbox may use."""
    kind: type[Line] = request.param
    return kind


@asynccontextmanager
async def outbox_on(
    address: str, line: type[Line], deadline: float = 10, max_bytes: int = 4_000_000, **settings: int
) -> AsyncIterator[Outbox]:
    outbox = Outbox(address, deadline=deadline, max_bytes=max_bytes, line=line)
    outbox._config.update({name.replace("_", "."): value for name, value in settings.items()})
    running = asyncio.create_task(outbox.run())
    try:
        await until(lambda: outbox.problem is None)
        yield outbox
        await outbox.close()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.02)


async def acknowledged(outbox: Outbox, name: str, count: int, sent: dict[str, bool]) -> None:
    """Put `count` messages and note for each whether `put` returned."""
    keys = [f"{name}-{number}" for number in range(count)]
    try:
        await outbox.put([(key.encode(), b"v" * 100) for key in keys], [(f"{name}-dead".encode(), b"x")])
    except Unavailable:
        sent.update(dict.fromkeys([*keys, f"{name}-dead"], False))
    else:
        sent.update(dict.fromkeys([*keys, f"{name}-dead"], True))


def written(address: str) -> set[str]:
    """Every key in both topics."""
    return {key.decode() for key, _ in kafka_reading.written(address, RAW_TOPIC, DEAD_LETTER_TOPIC)}


def in_loop(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work(), 120)

    asyncio.run(bounded())


def test_what_is_acknowledged_is_written(line: type[Line]) -> None:
    async def work() -> None:
        sent: dict[str, bool] = {}
        async with outbox_on(broker.address, line) as outbox:
            await asyncio.gather(*(acknowledged(outbox, f"r{n}", 50, sent) for n in range(40)))
            await outbox.put([], [])
        assert set(sent.values()) == {True}
        assert written(broker.address) == set(sent)
        assert len(sent) == 40 * 51

    with mock_kafka() as broker:
        in_loop(work)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_acknowledged_is_lost_through_errors_and_outages(seed: int, line: type[Line]) -> None:
    """Every message is a request to the broker of its own, so an error hits single messages amid others, as no real load would.

    One request at a time, since this broker does not check sequence numbers: it would write what follows a loss. The real one, below, does.
    """
    chance = random.Random(seed)

    async def faults(broker: MockKafka) -> None:
        for _ in range(8):
            await asyncio.sleep(0.2 + chance.random() * 0.3)
            match chance.randrange(4):
                case 0:
                    broker.fail_produce(*[0] * chance.randrange(20), chance.choice(FINAL))
                case 1:
                    broker.stop()
                    await asyncio.sleep(chance.random() * 0.3)
                    broker.start()
                case _:
                    broker.fail_produce(*(chance.choice((0, *RETRIED)) for _ in range(chance.randrange(1, 8))))

    async def work() -> None:
        sent: dict[str, bool] = {}
        async with outbox_on(broker.address, line, deadline=3, batch_num_messages=1, max_in_flight=1) as outbox:
            await acknowledged(outbox, "first", 20, sent)
            storm = asyncio.create_task(faults(broker))
            number = 0
            while not storm.done():
                number += 5
                await asyncio.gather(*(acknowledged(outbox, f"r{number + n}", 20, sent) for n in range(5)))
                await asyncio.sleep(0.01)
            await storm
            last: dict[str, bool] = {}
            while not all(last.values()) or not last:  # it comes back by itself
                await asyncio.sleep(0.1)
                await acknowledged(outbox, "last", 10, last)
        assert {key for key, done in sent.items() if done} - written(broker.address) == set()
        assert True in sent.values()

    with mock_kafka() as broker:
        in_loop(work)


@pytest.mark.parametrize("error", FINAL)
def test_a_loss_ahead_of_the_reported_message_is_no_acknowledgement(error: int, line: type[Line]) -> None:
    """Only the last message asks for a report. The first one's loss must be known all the same."""

    async def work() -> None:
        async with outbox_on(broker.address, line, batch_num_messages=1) as outbox:
            await outbox.put([(b"warm", b"up")], [])
            for place in range(5):
                await until(lambda: outbox.problem is None)
                broker.fail_produce(*[0] * place, error)
                keys = [f"{place}-{number}".encode() for number in range(6)]
                try:
                    await outbox.put([(key, b"v") for key in keys], [])
                except Unavailable:
                    continue
                assert {key.decode() for key in keys} <= written(broker.address)

    with mock_kafka(partitions=1) as broker:
        in_loop(work)


@pytest.fixture(scope="module")
def real_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealKafka]:
    broker = RealKafka(tmp_path_factory.mktemp("kafka"))
    broker.start()
    yield broker
    broker.kill()


def test_nothing_acknowledged_is_lost_when_the_real_kafka_is_killed_and_frozen(real_kafka: RealKafka, line: type[Line]) -> None:
    async def faults() -> None:
        for _ in range(2):
            await asyncio.sleep(0.5)
            real_kafka.kill()
            await asyncio.to_thread(real_kafka.start)
            await asyncio.sleep(0.5)
            real_kafka.signal(signal.SIGSTOP)
            await asyncio.sleep(3)
            real_kafka.signal(signal.SIGCONT)

    async def work() -> None:
        sent: dict[str, bool] = {}
        async with outbox_on(real_kafka.address, line, deadline=2, max_bytes=200_000, batch_num_messages=7) as outbox:
            await acknowledged(outbox, "first", 20, sent)
            storm = asyncio.create_task(faults())
            number = 0
            while not storm.done():
                number += 20
                await asyncio.gather(*(acknowledged(outbox, f"k{number + n}", 20, sent) for n in range(20)))
                await asyncio.sleep(0.005)
            await storm
            last: dict[str, bool] = {}
            while not all(last.values()) or not last:
                await asyncio.sleep(0.1)
                await acknowledged(outbox, "last", 10, last)
        assert {key for key, done in sent.items() if done} - written(real_kafka.address) == set()
        assert set(sent.values()) == {True, False}

    in_loop(work)


def test_a_message_that_the_real_kafka_refuses_takes_its_request_with_it(real_kafka: RealKafka, line: type[Line]) -> None:
    """The refused message asks for no report; those after it, in flight at the same time, do."""

    async def work() -> None:
        sent: dict[str, bool] = {}
        async with outbox_on(real_kafka.address, line, batch_num_messages=1) as outbox:
            for number in range(8):
                await until(lambda: outbox.problem is None)
                large = number % 2
                keys = [f"large-{number}-{place}" for place in range(10)]
                values = [os.urandom(5000 if large and place == number // 2 else 50) for place in range(10)]
                try:
                    await outbox.put([(key.encode(), value) for key, value in zip(keys, values, strict=True)], [])
                    sent.update(dict.fromkeys(keys, True))
                except Unavailable:
                    assert large
        assert {key for key, done in sent.items() if done} - written(real_kafka.address) == set()
        assert len(sent) == 40

    client = AdminClient({"bootstrap.servers": real_kafka.address})
    entry = ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)
    (done,) = client.incremental_alter_configs([ConfigResource("topic", RAW_TOPIC, incremental_configs=[entry])]).values()
    done.result(30)
    in_loop(work)


def test_with_kafka_stopped_it_answers_within_the_deadline_and_in_bounded_memory(line: type[Line]) -> None:
    async def work() -> None:
        async with outbox_on(broker.address, line, deadline=0.5, max_bytes=20_000) as outbox:
            broker.stop()
            sent: dict[str, bool] = {}
            await asyncio.gather(*(acknowledged(outbox, f"r{n}", 20, sent) for n in range(50)))
            assert set(sent.values()) == {False}
            assert outbox._line is not None
            assert 0 < outbox._line.bytes <= 20_000
            await until(lambda: outbox.problem is not None)
            broker.start()
            await until(lambda: outbox.problem is None)
            while True:
                last: dict[str, bool] = {}
                await acknowledged(outbox, "last", 10, last)
                if all(last.values()):
                    break
            assert set(last) <= written(broker.address)
            await until(lambda: outbox._line is not None and outbox._line.bytes == 0)

    with mock_kafka() as broker:
        in_loop(work)


def test_without_kafka_it_refuses_at_once(line: type[Line]) -> None:
    async def work() -> None:
        outbox = Outbox("127.0.0.1:1", deadline=10, max_bytes=1_000_000, line=line)
        running = asyncio.create_task(outbox.run())
        with pytest.raises(Unavailable):
            await outbox.put([(b"k", b"v")], [])
        await until(lambda: "cannot be reached" in (outbox.problem or ""))
        with pytest.raises(Unavailable):
            await outbox.put([(b"k", b"v")], [])
        running.cancel()

    in_loop(work)
