"""How far a consumer is behind, without holding it up."""

from typing import cast

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.metrics import LAG, LagGauge

Ends = tuple[int, int]


class Partitions:
    """A consumer of two partitions: what Kafka would say of them, what the consumer saw of them, and who was asked."""

    def __init__(self) -> None:
        self.kafka: dict[int, Ends | None] = {0: (10, 100), 1: (0, 0)}
        self.seen: dict[int, Ends] = {0: (-1001, -1001), 1: (-1001, -1001)}
        self.asked: list[int] = []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("lag", number) for number in self.kafka]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float, cached: bool) -> Ends | None:
        assert timeout > 0
        if cached:
            return self.seen[at.partition]
        self.asked.append(at.partition)
        return self.kafka[at.partition]


@pytest.fixture
def partitions() -> Partitions:
    return Partitions()


@pytest.fixture
def gauge(partitions: Partitions) -> LagGauge:
    return LagGauge(cast(Consumer, partitions), every=0)


def lag() -> list[float]:
    return [LAG.labels("lag", str(number))._value.get() for number in range(2)]


def test_while_it_reads_kafka_is_asked_once_for_each_partition(partitions: Partitions, gauge: LagGauge) -> None:
    gauge.final({("lag", 0): -1001})  # nothing was committed yet
    gauge.update(paused=False)
    assert (lag(), partitions.asked) == ([90, 0], [0, 1])
    gauge.update(paused=False)
    assert lag() == [90, 0]  # nothing was fetched yet: what was said stands
    partitions.seen = {0: (-1001, 110), 1: (-1001, 7)}
    gauge.final({("lag", 0): 105})
    gauge.update(paused=False)
    assert (lag(), partitions.asked) == ([5, 7], [0, 1])


def test_while_it_is_paused_kafka_is_asked(partitions: Partitions, gauge: LagGauge) -> None:
    gauge.final({("lag", 0): 50, ("lag", 1): 0})
    partitions.seen = {0: (-1001, 60), 1: (-1001, 0)}
    gauge.update(paused=True)
    assert (lag(), partitions.asked) == ([50, 0], [0, 1])


def test_where_kafka_is_away_what_was_known_stands(partitions: Partitions, gauge: LagGauge) -> None:
    gauge.update(paused=False)
    partitions.kafka = {0: None, 1: None}
    gauge.update(paused=True)
    assert lag() == [90, 0]
    gauge.update(paused=False)
    partitions.seen[0] = (-1001, 100)
    gauge.update(paused=False)
    assert lag() == [90, 0]  # from the first that there is, not from 0


def test_what_was_deleted_before_it_was_read_is_not_waited_for(partitions: Partitions, gauge: LagGauge) -> None:
    gauge.final({("lag", 0): 5})
    gauge.update(paused=True)
    assert lag()[0] == 90
