"""What every consumer promises, tried with each of the three, on librdkafka's in-process broker and on a real Kafka.

The in-process broker has no transactions: it answers TxnOffsetCommit and keeps nothing of it, and shows readers what is open or aborted.
An enricher on it can therefore not go on where another process was, and what a broken connection aborted is there twice. So it is left out
where a process ends or a partition moves (`KEEPS_PLACE`), and where the broker goes away it is asked for nothing lost, not for nothing
doubled. Nor does it fence a static member whose name another process takes, and it keeps one that ended until its session is over, ten
seconds for each start: what needs a fence or many starts has a real Kafka only (`REAL`), and what needs starts has one of them on it.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from headrace.dead_letter import Reason
from tests.collector_mock_kafka import mock_kafka
from tests.collector_real_kafka import RealKafka
from tests.integration.consumers import Gate, eventually, produce, topics
from tests.integration.delivery import Batch, Consumer, Enricher, MockBroker, RealBroker, Realtime

pytestmark = pytest.mark.usefixtures("servers")

Case = tuple[type[Consumer], str]
REAL: list[Case] = [(kind, "kafka") for kind in (Enricher, Realtime, Batch)]
KEEPS_PLACE: list[Case] = [(Realtime, "mock"), (Batch, "mock"), *REAL]
MOCK: list[Case] = [(kind, "mock") for kind in (Enricher, Realtime, Batch)]
ALL: list[Case] = [(Enricher, "mock"), *KEEPS_PLACE]


def _each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("consumer", cases, ids=[f"{kind.name}-{broker}" for kind, broker in cases], indirect=True)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    server = RealKafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield RealBroker(server)
    server.kill()


@pytest.fixture
def consumer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Consumer]:
    kind, name = request.param
    with ExitStack() as stack:
        broker = MockBroker(stack.enter_context(mock_kafka())) if name == "mock" else request.getfixturevalue("real")
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.address)
        ours = stack.enter_context(broker.topics(2) if isinstance(broker, MockBroker) else topics(2))
        one: Consumer = kind(ours, broker)
        yield one
        one.end()


def ids(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n:05}" for n in range(count)]


def _more_than(before: int, count: Callable[[], int]) -> Callable[[], bool]:
    return lambda: count() > before


def reasons(consumer: Consumer) -> list[tuple[Reason, bytes]]:
    return [(letter.reason, letter.payload_bytes()) for letter in consumer.letters()]


@_each(ALL)
def test_good_events_arrive_once_and_a_bad_one_is_dead_lettered_with_its_reason(consumer: Consumer) -> None:
    with consumer.process() as process:
        consumer.produce(ids("a", 150))
        produce(consumer.reads, [consumer.bad])
        consumer.produce(ids("b", 150))
        eventually(consumer.arrived, ids("a", 150) + ids("b", 150))
        eventually(lambda: reasons(consumer), [(consumer.bad_reason, consumer.bad[1])])

        read = 300 + 1 + consumer.reads_own_letters
        eventually(lambda: process.metric("headrace_messages_total"), {"": read})
        assert process.metric("headrace_rejected_total") == {consumer.bad_reason.value: 1}
        assert process.metric("headrace_batch_messages_sum") == {"": read}
        assert process.metric("headrace_step_seconds_count").keys() == {"parse", "deliver", "commit"}
        eventually(lambda: set(process.metric("headrace_lag_messages").values()), {0})
        assert process.stop() == 0


@_each(ALL)
def test_an_outage_delays_events_and_dead_letters_none(consumer: Consumer) -> None:
    """Of each server that it depends on: from the start, and later."""
    gates = {setting: Gate.before(setting) for setting in consumer.needs}
    with consumer.process(**{setting: gate.url for setting, gate in gates.items()}) as process:

        def waited() -> int:
            return process.said().count('"unavailable: waiting"')

        wanted = ids("a", 50)
        consumer.produce(wanted)
        eventually(lambda: waited() > 0, True)
        assert process.metric("headrace_waiting") == {"": 1}
        for gate in gates.values():
            gate.open()
        eventually(consumer.arrived, wanted)
        for setting, gate in gates.items():
            gate.shut()
            before, more = waited(), ids(setting, 50)
            consumer.produce(more)
            eventually(_more_than(before, waited), True)
            eventually(lambda: sum(process.metric("headrace_lag_messages").values()), 50)
            gate.open()
            wanted = sorted(wanted + more)
            eventually(consumer.arrived, wanted)
        assert consumer.letters() == []
        assert process.stop() == 0
        for gate in gates.values():
            gate.shut()


@_each(ALL)
def test_nothing_is_lost_where_kafka_goes_away_in_the_middle_and_comes_back(consumer: Consumer) -> None:
    wanted = ids("a", 1000) + ids("b", 100)
    with consumer.supervised() as process:  # one that cannot know what became of its transaction ends, and the next one settles that
        consumer.produce(wanted[:1000])
        eventually(lambda: bool(consumer.arrived()), True)
        consumer.broker.down()
        time.sleep(2)
        consumer.broker.up()
        consumer.produce(wanted[1000:])
        if consumer.keeps_place:
            eventually(consumer.arrived, wanted)
        else:
            eventually(lambda: sorted(set(consumer.arrived())), wanted)
        assert consumer.letters() == []
        assert process.is_running()


@_each(KEEPS_PLACE)
def test_stopped_and_killed_in_the_middle_again_and_again_it_loses_and_doubles_nothing(consumer: Consumer) -> None:
    wanted = ids("a", 3000)
    with consumer.process() as process:
        ends = [process.kill, process.stop, process.kill] if consumer.broker.transactional else [process.kill]
        for part, end in enumerate(ends):
            before = len(consumer.arrived())
            consumer.produce(wanted[part :: len(ends)])
            eventually(_more_than(before, lambda: len(consumer.arrived())), True)  # in the middle, where it is slow enough
            eventually(_more_than(part, lambda: process.said().count('"started"')), True)  # it hears signals from here on
            assert end() in (0, None)
            process.start()
        eventually(consumer.arrived, wanted)
        assert consumer.letters() == []


@_each(MOCK)
def test_told_to_stop_while_kafka_is_away_it_ends_in_time(consumer: Consumer) -> None:
    """Where calls to Kafka do not come back, and the process would hear no signal."""
    with consumer.process() as process:
        consumer.produce(ids("a", 300))
        eventually(lambda: len(consumer.arrived()) > 0, True)
        consumer.broker.down()
        time.sleep(1)
        assert process.stop() == 0


@_each(KEEPS_PLACE)
def test_a_member_that_comes_and_one_that_was_frozen_out_lose_and_double_nothing(consumer: Consumer) -> None:
    """The second is frozen with a partition until Kafka has given that to the first; when it wakes up it holds what is not its own."""
    wanted = ids("a", 2400)
    with consumer.process("one") as one:
        consumer.produce(wanted[:400])
        eventually(consumer.arrived, wanted[:400])
        with consumer.process("two") as two:
            eventually(lambda: two.said().count('"assigned"') > 0, True)
            consumer.produce(wanted[400:1400])
            eventually(lambda: len(consumer.arrived()) > 400, True)
            two.signal(signal.SIGSTOP)
            assigned = one.said().count('"assigned"')
            eventually(lambda: one.said().count('"assigned"') > assigned, True)  # after the session time-out
            consumer.produce(wanted[1400:1900])
            time.sleep(1)
            two.signal(signal.SIGCONT)
            consumer.produce(wanted[1900:])
            eventually(consumer.arrived, wanted)
            assert consumer.letters() == []
            assert one.is_running()


@_each(REAL)
def test_one_whose_name_another_takes_ends_and_commits_nothing_more(consumer: Consumer) -> None:
    wanted = ids("a", 2000)
    with consumer.process() as first:
        consumer.produce(wanted[:1000])
        eventually(lambda: len(consumer.arrived()) > 0, True)
        with consumer.process() as second:
            consumer.produce(wanted[1000:])
            assert first.exit_code() == 1
            assert "Traceback" not in first.said()
            eventually(consumer.arrived, wanted)
            assert consumer.letters() == []
            assert second.stop() == 0


@_each(REAL)
def test_a_message_that_ends_the_process_is_dead_lettered_alone(consumer: Consumer) -> None:
    """In one batch with others; by an exception, a segmentation fault, and what memory's end looks like."""
    good = ids("a", 6)
    with consumer.supervised(TEST_POISON=consumer.ends_by) as process:
        consumer.produce(good[:3])
        consumer.produce(["lethal"])
        consumer.produce(good[3:])
        eventually(lambda: [(letter.reason, letter.id) for letter in consumer.letters()], [(Reason.POISON, "lethal")])
        eventually(consumer.arrived, good)
        assert 3 <= len(process.ends) <= 8
        assert process.stop() == 0
