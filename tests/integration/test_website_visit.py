"""A visit to the shop of the running platform: every event that the collector took stands in events.raw."""

import os
import shutil
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace.event import RAW_TOPIC, RawEvent, decode_raw
from headrace.kafka import consumer_config
from producers.website.visit import browser_like_visit, visit

pytestmark = pytest.mark.usefixtures("platform")


class Tap:
    """What comes into events.raw from now on."""

    def __init__(self) -> None:
        self._consumer = Consumer(consumer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"], "headrace.tests.website"))
        partitions = self._consumer.list_topics(RAW_TOPIC, timeout=10).topics[RAW_TOPIC].partitions
        ends = {number: self._consumer.get_watermark_offsets(TopicPartition(RAW_TOPIC, number), timeout=10)[1] for number in partitions}
        self._consumer.assign([TopicPartition(RAW_TOPIC, number, end) for number, end in ends.items()])

    def events(self, ids: set[str]) -> dict[str, list[RawEvent]]:
        """The events of `ids` by id, once all are there; what is there after 30 s where not all are."""
        found: dict[str, list[RawEvent]] = {}
        deadline = time.monotonic() + 30
        while set(found) != ids and time.monotonic() < deadline:
            for message in self._consumer.consume(500, timeout=0.5):
                assert message.error() is None, message.error()
                event = decode_raw(message.value() or b"")
                if event.id in ids:
                    found.setdefault(event.id, []).append(event)
        return found

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def tap() -> Iterator[Tap]:
    tap = Tap()
    yield tap
    tap.close()


@pytest.fixture
def shop_url() -> str:
    return f"http://{os.environ['BIND_HOST']}:{os.environ['SHOP_PORT']}"


def test_a_visit_in_chromium_arrives(tap: Tap, shop_url: str) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("no chromium to visit the shop with: apt-get install chromium", pytrace=False)
    sent = visit(shop_url, chromium)
    types = [event.type for event in sent]
    for type in ("page_view", "button_click", "add_to_cart", "identify", "login", "purchase"):
        assert type in types
    found = tap.events({event.id for event in sent})
    assert {id: events[0].type for id, events in found.items()} == {event.id: event.type for event in sent}
    purchase = next(events[0] for events in found.values() if events[0].type == "purchase")
    assert purchase.subject is not None
    assert purchase.subject.startswith("web-")
    assert purchase.receipt.protocol == "segment"
    assert "Chrom" in (purchase.receipt.user_agent or "")


def test_a_browser_like_visit_arrives_once(tap: Tap, shop_url: str) -> None:
    collector = f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}"
    sent = browser_like_visit(collector, os.environ["HEADRACE_WRITE_KEY"], shop_url)
    found = tap.events({event.id for event in sent})
    assert {id: [event.type for event in events] for id, events in found.items()} == {event.id: [event.type] for event in sent}
