"""The native client of Kafka, by itself: where it puts messages, what it refuses, and that it keeps nothing."""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from zlib import crc32

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from collector import _native
from collector.accept import Limits
from collector.fast import Fast
from collector.line import NativeLine, NotThere, PythonLine, Tell, Waiting, choose, size_of
from collector.outbox import Outbox
from headrace import kafka
from headrace.dead_letter import Unavailable
from headrace.event import RAW_TOPIC
from headrace.registry import Registry
from tests.collector_mock_kafka import mock_kafka

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
EVENT = (
    '{"id":"%s","source":"shop","type":"purchase","subject":"c1","time":"2026-01-31T12:00:00Z",'
    '"data":{"quantity":1,"amount_usd":2.5,"x":"%s"}}'
)


def in_memory(ids: list[str], size: int = 10) -> _native.Messages:
    """Accepted events in native memory, each with so many bytes of text."""
    body = f"[{','.join(EVENT % (id, 'x' * size) for id in ids)}]".encode()
    found = Fast(REGISTRY, Limits())._for(None).cloudevents(body, True, b"", b"2026-11-21T10:00:00.000Z", b"{}")
    assert found is not None
    assert found[1] == []
    return found[0]


def config(address: str, **settings: int) -> kafka.Config:
    return Outbox(address, deadline=1, max_bytes=100_000_000)._config | {name.replace("_", "."): value for name, value in settings.items()}


def opened(address: str, **settings: int) -> NativeLine:
    line = NativeLine(config(address, **settings))
    assert line.probe() is None
    return line


def waiting(tell: Tell = lambda _: None) -> Waiting:
    return Waiting(tell, 0, 0)


def answered(request: Waiting) -> bool:
    return not request.waits


def polled(line: NativeLine, until: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not until():
        line.poll()
        assert time.monotonic() < end
        time.sleep(0.001)


def written(address: str, count: int) -> dict[int, list[tuple[bytes, bytes]]]:
    """The messages of each partition, once there are so many."""
    consumer = Consumer(kafka.consumer_config(address, "check"))
    partitions = consumer.list_topics(timeout=10).topics[RAW_TOPIC].partitions
    consumer.assign([TopicPartition(RAW_TOPIC, number, 0) for number in partitions])
    found: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in partitions}
    for _ in range(count):
        message = consumer.poll(10)
        assert message is not None
        assert message.error() is None
        partition = message.partition()
        assert partition is not None
        found[partition].append((message.key() or b"", message.value() or b""))
    consumer.close()
    return found


def test_each_message_is_in_the_partition_of_its_key_and_in_order() -> None:
    chance = random.Random(1)
    lists = [[(chance.randbytes(chance.randrange(1, 60)), chance.randbytes(chance.randrange(200))) for _ in range(300)] for _ in range(3)]
    sent = [*lists, in_memory([f"{number}-é" for number in range(400)])]
    with mock_kafka(partitions=7) as broker:
        line = opened(broker.address)
        requests = [waiting() for _ in sent]
        for messages, request in zip(sent, requests, strict=True):
            line.produce(RAW_TOPIC, messages, request)
            assert request.reports == 7
        polled(line, lambda: all(map(answered, requests)))
        assert line.broken is None
        assert line._requests == {}
        assert line._producer.queued() == 0
        every = [one for messages in sent for one in messages]
        found = written(broker.address, len(every))
        assert found == {number: [one for one in every if crc32(one[0]) % 7 == number] for number in range(7)}
        line.dispose()


def test_the_size_of_messages_is_the_same_in_both_kinds_of_memory() -> None:
    messages = in_memory(["a", "b"])
    assert size_of(messages) == size_of(list(messages)) == sum(len(key) + len(value) for key, value in messages)


def test_what_the_client_does_not_take_breaks_the_line() -> None:
    with mock_kafka() as broker:
        full = opened(broker.address, queue_buffering_max_messages=10)
        nowhere = opened(broker.address)
        nowhere.produce(RAW_TOPIC, [(b"k", b"v")], request := waiting())
        polled(nowhere, partial(answered, request))
        nowhere._partitions[RAW_TOPIC] = 1000
        large = opened(broker.address, message_max_bytes=2000)
        for line, messages, why in (
            (full, [(b"%d" % number, b"v") for number in range(20)], "Queue full"),
            (nowhere, [(b"%d" % number, b"v") for number in range(20)], "Unknown partition"),
            (large, [(b"k", b"v"), (b"k", os.urandom(3000))], "Message size too large"),
        ):
            with pytest.raises(Unavailable, match=why):
                line.produce(RAW_TOPIC, messages, waiting())
            assert why in (line.broken or "")
            line.dispose()
            line.dispose()
            with pytest.raises(RuntimeError, match="disposed"):
                line.poll()


def test_the_first_message_that_is_lost_breaks_the_line_although_another_stands_for_it() -> None:
    with mock_kafka(partitions=1) as broker:
        line = opened(broker.address, batch_num_messages=1, max_in_flight=1)
        line.produce(RAW_TOPIC, [(b"warm", b"up")], first := waiting())
        polled(line, partial(answered, first))
        broker.fail_produce(10)  # too large
        line.produce(RAW_TOPIC, [(b"%d" % number, b"v") for number in range(5)], request := waiting())
        polled(line, lambda: line.broken is not None)
        assert request.waits
        line.dispose()


@pytest.mark.parametrize("wrong", [{"linger.ms": "soon"}, {"no.such.setting": 1}, {"client.id": "a\0b"}])
def test_a_setting_that_librdkafka_does_not_take_is_refused(wrong: kafka.Config) -> None:
    with pytest.raises(NotThere):
        NativeLine(config("127.0.0.1:1") | wrong)


def test_the_client_is_chosen_by_the_setting() -> None:
    assert choose("on") is NativeLine
    assert choose("auto") is NativeLine
    assert choose("off") is PythonLine


def test_a_library_without_librdkafka_is_refused() -> None:
    with pytest.raises(RuntimeError, match="not in this process"):
        _native.Producer("/nowhere/cimpl.so", [])
    with pytest.raises(RuntimeError, match="has no rd_kafka_version"):
        _native.Producer(_native.__file__, [])


def resident() -> float:
    """MB."""
    return psutil.Process().memory_info().rss / 1e6


def test_acknowledged_messages_leave_no_memory_behind() -> None:
    """360 MB after a warm-up: a leak of every tenth message would be seen."""

    def rounds(line: NativeLine) -> None:
        for number in range(60):
            memory = in_memory([f"{number}-{place}" for place in range(500)], 2000)
            for messages in (memory, list(memory)):
                told: list[Unavailable | None] = []
                line.produce(RAW_TOPIC, messages, waiting(told.append))
                polled(line, partial(told.__eq__, [None]))

    with mock_kafka() as broker:
        line = opened(broker.address)
        rounds(line)
        before = resident()
        for _ in range(3):
            rounds(line)
        assert resident() - before < 25
        assert (line._requests, line._producer.queued()) == ({}, 0)
        line.dispose()


def test_a_client_that_is_disposed_of_leaves_no_memory_behind() -> None:
    """20 MB are given up with each client, and some are told of in vain."""
    with mock_kafka() as broker:
        before = 0.0
        for number in range(12):
            line = opened(broker.address)
            broker.stop()
            line.produce(RAW_TOPIC, in_memory([str(place) for place in range(500)], 20_000), waiting())
            line.produce(RAW_TOPIC, [(b"%d" % place, bytes(10_000)) for place in range(1000)], waiting())
            line.poll()
            assert line._producer.queued() == 1500
            if number % 2:
                line.dispose()
            broker.start()
            del line
            if number == 5:
                before = resident()
        assert resident() - before < 40


@pytest.mark.parametrize("error", [10, 29, 45, 47, 87])  # too large, not allowed, out of order, an old epoch, invalid record
def test_a_fatal_error_is_a_kafka_exception_though_callbacks_come_after_it(error: int) -> None:
    """It was a SystemError, or a bare KafkaError that no `except` caught and that ended the thread."""
    told: list[bool] = []
    with mock_kafka() as broker:
        settings = {"enable.idempotence": True, "enable.gapless.guarantee": True, "batch.num.messages": 1, "log_level": 0}
        producer = Producer({"bootstrap.servers": broker.address, **settings, "error_cb": lambda _: None})
        producer.list_topics(timeout=10)
        broker.fail_produce(*[error] * 5)
        broker.stop()  # so that all are taken before the first is refused: afterwards it takes none
        for _ in range(20):
            producer.produce(RAW_TOPIC, b"v", partition=0, on_delivery=lambda problem, _: told.append(problem is None))
        broker.start()
        with pytest.raises(KafkaException):
            kafka.told(lambda: producer.flush(10))
        assert True not in told
        producer.purge()
