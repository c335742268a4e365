"""A client of Kafka that does not find back, as librdkafka's where Kafka named no broker for a moment, is replaced."""

import asyncio
from collections.abc import Callable

import pytest

from collector import line
from collector.line import PythonLine
from collector.outbox import Outbox
from headrace import kafka
from tests.collector_mock_kafka import MockKafka, mock_kafka


class CutOff(PythonLine):
    """The first one reaches Kafka once and never again."""

    made = 0

    def __init__(self, config: kafka.Config) -> None:
        super().__init__(config)
        CutOff.made += 1
        self._first = CutOff.made == 1
        self._probes = 0

    def probe(self) -> str | None:
        self._probes += 1
        return "cut off" if self._first and self._probes > 1 else super().probe()


async def until(wanted: Callable[[], bool]) -> None:
    while not wanted():
        await asyncio.sleep(0.02)


def opened(broker: MockKafka) -> Outbox:
    CutOff.made = 0
    return Outbox(broker.address, deadline=5, max_bytes=1_000_000, line=CutOff)


def test_it_is_replaced_where_kafka_is_there() -> None:
    async def scenario(outbox: Outbox) -> None:
        task = asyncio.create_task(outbox.run())
        await outbox.looked.wait()
        first = outbox._line
        await until(lambda: outbox._line not in (None, first))
        await until(lambda: outbox.problem is None)
        await outbox.put([(b"k", b"v")], [])  # raises Unavailable where it is not taken
        task.cancel()

    with mock_kafka() as broker:
        asyncio.run(scenario(opened(broker)))


def test_an_outage_replaces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "_PROBE_TIMEOUT", 0.3)

    async def scenario(outbox: Outbox, broker: MockKafka) -> None:
        task = asyncio.create_task(outbox.run())
        await outbox.looked.wait()
        first = outbox._line
        broker.stop()
        await until(lambda: CutOff.made > 2)  # a second one was asked, more than once
        assert outbox._line is first
        broker.start()
        await until(lambda: outbox.problem is None)
        assert outbox._line is first
        task.cancel()

    monkeypatch.setattr(CutOff, "probe", PythonLine.probe)
    with mock_kafka() as broker:
        asyncio.run(scenario(opened(broker), broker))
