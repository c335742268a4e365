"""A consumer whose place another took ends: it must not wait for ever for messages that never come."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.service import Topics
from tests.integration.consumers import eventually, produce, topics
from tests.integration.test_runner import Told, running

pytestmark = pytest.mark.usefixtures("servers")

NAME = {"group_instance_id": "one"}


def fenced(ours: Topics) -> None:
    first, second = Told(), Told()
    with running(ours, first, **NAME) as early:  # type: ignore[arg-type]
        produce(ours.raw, [(b"k", b"a")])
        eventually(lambda: first.delivered, ["a"])
        with running(ours, second, **NAME):  # type: ignore[arg-type]
            eventually(early.thread.is_alive, False)
            produce(ours.raw, [(b"k", b"b")])
            eventually(lambda: second.delivered, ["b"])


def test_a_runner_whose_name_another_took_ends() -> None:
    with topics() as ours, pytest.raises(KafkaException) as raised:
        fenced(ours)
    assert raised.value.args[0].code() == KafkaError._FATAL
