"""The consumers' loop on a real Kafka, with a stage that does as it is told."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headrace import dead_letter
from headrace.batch import Limits, RejectLimit, TooManyRejects
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.kafka import PLAINTEXT, consumer_config, producer_config
from headrace.messages import Message, Rejected
from headrace.progress import GroupProgress
from headrace.runner import Runner
from headrace.service import Topics
from tests.integration.consumers import bootstrap, duplicates, eventually, produce, read_all, topics

pytestmark = pytest.mark.usefixtures("servers")

NO_LIMIT = RejectLimit(1.0)


class Told:
    """A stage: `bad` values cannot be parsed, `refused` ones cannot be delivered, and while `away` it is unavailable."""

    def __init__(self) -> None:
        self.delivered: list[str] = []
        self.attempts: list[list[str]] = []
        self.away = threading.Event()
        self.broken = False

    def parse(self, message: Message) -> str:
        value = (message.value() or b"").decode()
        if value.startswith("bad"):
            raise Invalid(Reason.MALFORMED, value)
        return value

    def deliver(self, items: Sequence[tuple[Message, str]]) -> Sequence[Rejected]:
        self.attempts.append([value for _, value in items])
        if self.away.is_set():
            raise Unavailable("told to be away")
        if self.broken:
            raise ZeroDivisionError
        self.delivered += [value for _, value in items if not value.startswith("refused")]
        return [Rejected(message, Reason.DOCUMENT_REJECTED, value) for message, value in items if value.startswith("refused")]


class Forgetful(Consumer):
    """A consumer that goes on from the beginning after a pause (decision 0046)."""

    def resume(self, partitions: list[TopicPartition]) -> None:
        super().resume(partitions)
        for partition in self.position(partitions):
            if partition.offset > 0:
                self.seek(TopicPartition(partition.topic, partition.partition, 0))


class Running:
    """A runner in a thread."""

    def __init__(
        self, ours: Topics, stage: Told, seconds: float, limit: RejectLimit, config: dict[str, int], *, kind: type[Consumer] = Consumer
    ) -> None:
        self.stop = threading.Event()
        self.group = f"{ours.prefix}group"
        consumer = kind(consumer_config(bootstrap(), self.group, security=PLAINTEXT, session_timeout_ms=6000, **config))
        producer = Producer(producer_config(bootstrap()))
        runner = Runner(
            service="test",
            consumer=consumer,
            topics=[ours.raw],
            stage=stage,
            progress=GroupProgress(consumer, producer, ours.dead_letter("enricher")),
            limits=Limits(100, 1_000_000, seconds),
            reject_limit=limit,
            stop=self.stop,
        )
        self.error: BaseException | None = None

        def run() -> None:
            try:
                runner.run()
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextmanager
def running(
    ours: Topics, stage: Told, seconds: float = 0.2, limit: RejectLimit = NO_LIMIT, kind: type[Consumer] = Consumer, **config: int
) -> Iterator[Running]:
    """A runner whose batches are at most 100 messages and `seconds` old."""
    runner = Running(ours, stage, seconds, limit, config, kind=kind)
    try:
        yield runner
    finally:
        runner.end()
    if runner.error is not None:
        raise runner.error


def committed(ours: Topics, partitions: int) -> int:
    """The sum of what the group has committed."""
    consumer = Consumer(consumer_config(bootstrap(), f"{ours.prefix}group"))
    found = consumer.committed([TopicPartition(ours.raw, number) for number in range(partitions)], timeout=10)
    consumer.close()
    return sum(max(0, partition.offset) for partition in found)


def shares(ours: Topics) -> list[int]:
    """How many partitions each member of the group has, as the broker says: a consumer may only be asked by its own thread."""
    group = f"{ours.prefix}group"
    admin = AdminClient({"bootstrap.servers": bootstrap()})  # kept while it answers
    found = admin.describe_consumer_groups([group])[group].result()
    return sorted(len(member.assignment.topic_partitions) for member in found.members)


def values(prefix: str, count: int) -> list[tuple[bytes, bytes]]:
    return [(f"{prefix}{n}".encode(), f"{prefix}{n}".encode()) for n in range(count)]


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


def test_good_ones_are_delivered_and_both_kinds_of_bad_ones_dead_lettered_before_the_commit() -> None:
    stage = Told()
    with topics(2) as ours, running(ours, stage):
        produce(ours.raw, values("good", 250) + values("bad", 3) + values("refused", 2))
        eventually(lambda: committed(ours, 2), 255)
        letters = [dead_letter.decode(message.value()) for message in read_all(ours.dead_letter("enricher"))]
        assert sorted((letter.reason, letter.payload) for letter in letters) == [
            *((Reason.DOCUMENT_REJECTED, value) for value in names("refused", 2)),
            *((Reason.MALFORMED, value) for value in names("bad", 3)),
        ]
        assert sorted(stage.delivered) == sorted(names("good", 250))
        assert max(map(len, stage.attempts)) <= 100


def test_an_outage_longer_than_the_poll_interval_loses_no_partition_and_no_message() -> None:
    stage = Told()
    stage.away.set()
    with topics(2) as ours, running(ours, stage, max_poll_interval_ms=6000):
        produce(ours.raw, values("a", 50))
        eventually(lambda: len(stage.attempts) > 1, True)
        produce(ours.raw, values("b", 50))
        time.sleep(9)  # longer than Kafka lets a consumer be silent
        assert committed(ours, 2) == 0
        assert shares(ours) == [2]
        stage.away.clear()
        eventually(lambda: committed(ours, 2), 100)
        assert sorted(stage.delivered) == sorted(names("a", 50) + names("b", 50))
        assert duplicates(stage.delivered) == []
        assert read_all(ours.dead_letter("enricher")) == []


def test_a_client_that_gives_messages_a_second_time_after_a_pause_doubles_none() -> None:
    stage = Told()
    with topics(2) as ours, running(ours, stage, kind=Forgetful):
        produce(ours.raw, values("a", 50))
        eventually(lambda: committed(ours, 2), 50)
        stage.away.set()
        produce(ours.raw, values("b", 50))
        eventually(lambda: stage.attempts[-1] != [] and stage.attempts[-1][0].startswith("b"), True)
        stage.away.clear()
        eventually(lambda: committed(ours, 2), 100)
        produce(ours.raw, values("c", 50))
        eventually(lambda: committed(ours, 2), 150)
        assert sorted(stage.delivered) == sorted(name for part in "abc" for name in names(part, 50))


def test_a_defect_ends_the_loop_with_the_batch_uncommitted() -> None:
    stage = Told()
    with topics(1) as ours:
        produce(ours.raw, values("a", 10) + values("bad", 1))
        stage.broken = True
        with pytest.raises(ZeroDivisionError), running(ours, stage) as broken:
            broken.thread.join(60)
        assert committed(ours, 1) == 0
        assert read_all(ours.dead_letter("enricher")) == []
        stage.broken = False
        with running(ours, stage):
            eventually(lambda: committed(ours, 1), 11)
        assert stage.delivered == names("a", 10)


def test_once_at_the_limit_of_rejects_a_start_lets_no_more_through() -> None:
    limit = RejectLimit(0.5, least=100)
    with topics(1) as ours:

        def refused() -> int:
            return len(read_all(ours.dead_letter("enricher")))

        first = Running(ours, Told(), 0.2, limit, {})
        produce(ours.raw, values("bad", 40))
        eventually(refused, 40)
        produce(ours.raw, values("bad", 60))
        first.thread.join(60)
        assert isinstance(first.error, TooManyRejects)
        with pytest.raises(TooManyRejects), running(ours, Told(), limit=limit) as second:
            second.thread.join(60)
        assert refused() == 40
        produce(ours.raw, values("good", 100))
        with running(ours, mended := Told()):
            eventually(lambda: committed(ours, 1), 200)
        assert (len(mended.delivered), refused()) == (100, 100)


def test_told_to_stop_while_it_waits_it_goes_and_leaves_the_batch_to_the_next() -> None:
    stage = Told()
    stage.away.set()
    with topics(1) as ours:
        produce(ours.raw, values("a", 10))
        with running(ours, stage):
            eventually(lambda: len(stage.attempts) > 0, True)
        assert committed(ours, 1) == 0
        stage.away.clear()
        with running(ours, stage):
            eventually(lambda: committed(ours, 1), 10)
        assert stage.delivered == names("a", 10)


def test_partitions_that_go_to_another_member_during_an_outage_are_delivered_by_that_one() -> None:
    """The first member holds a batch of all partitions while it waits; half of them move; each message is delivered by one of both."""
    one, other = Told(), Told()
    one.away.set()
    with topics(4) as ours, running(ours, one, seconds=2):
        produce(ours.raw, values("a", 80))
        eventually(lambda: sum(map(len, one.attempts[-1:])), 80)
        with running(ours, other):
            eventually(lambda: shares(ours), [2, 2])
            eventually(lambda: len(other.delivered) > 0, True)
            one.away.clear()
            eventually(lambda: committed(ours, 4), 80)
            delivered = one.delivered + other.delivered
            assert sorted(delivered) == sorted(names("a", 80))
            produce(ours.raw, values("b", 80))
            eventually(lambda: committed(ours, 4), 160)
        produce(ours.raw, values("c", 80))  # the second has gone: the first has all again
        eventually(lambda: committed(ours, 4), 240)
        assert sorted(one.delivered + other.delivered) == sorted(names("a", 80) + names("b", 80) + names("c", 80))


def test_partitions_that_come_in_during_an_outage_wait_and_are_kept() -> None:
    one, other = Told(), Told()
    with topics(4) as ours, running(ours, one):
        eventually(lambda: shares(ours), [4])
        with running(ours, other):
            eventually(lambda: shares(ours), [2, 2])
            one.away.set()
            other.away.set()
            produce(ours.raw, values("a", 400))
            eventually(lambda: bool(one.attempts) and bool(other.attempts), True)
        # The second has gone with its batch uncommitted; its partitions come to the first, which is still waiting.
        eventually(lambda: shares(ours), [4])
        produce(ours.raw, values("b", 100))
        one.away.clear()
        eventually(lambda: committed(ours, 4), 500)
        assert sorted(one.delivered) == sorted(names("a", 400) + names("b", 100))
