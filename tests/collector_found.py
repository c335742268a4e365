"""What a collector of the tests wrote to Kafka."""

from collections.abc import Callable
from typing import Any

import orjson

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter
from headrace.event import RawEvent
from tests.collector_process import CollectorProcess

RAW, DEAD = event.RAW_TOPIC, "dead-letter.collector"


def raws(server: CollectorProcess, holds: Callable[[RawEvent], bool]) -> list[RawEvent]:
    """The events for which `holds` is true."""
    return [of for of in (event.decode_raw(value) for _, value in server.written(RAW)) if holds(of)]


def raw(server: CollectorProcess, id: str) -> RawEvent:
    """The one event with this id."""
    (found,) = raws(server, lambda of: of.id == id)
    return found


def dead(server: CollectorProcess, holds: Callable[[DeadLetter], bool]) -> DeadLetter:
    """The one dead letter for which `holds` is true."""
    (found,) = [letter for letter in (dead_letter.decode(value) for _, value in server.written(DEAD)) if holds(letter)]
    return found


def data(of: RawEvent) -> Any:
    """The data of an event, read."""
    return orjson.loads(bytes(of.data))
