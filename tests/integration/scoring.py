"""Requests through Kafka and their answers, for all who answer them."""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Consumer, Producer

from enrichment_api.queue.stage import REQUESTS
from headrace.kafka import consumer_config, producer_config


def ask(kafka: str, *requests: Any) -> None:
    producer = Producer(producer_config(kafka))
    for request in requests:
        value, key = (request, None) if isinstance(request, bytes) else (json.dumps(request).encode(), request["correlation_id"])
        producer.produce(REQUESTS, value, key)
        producer.poll(0)
    assert producer.flush(60) == 0


def request(name: str, quantity: float, reply_to: str | None = None, **changed: Any) -> dict[str, Any]:
    event = {"id": name, "source": "shop", "type": "purchase", "time": "2026-11-22T00:00:00Z", "subject": "c-1"} | changed
    said = {"correlation_id": name, "event": event | {"data": {"quantity": quantity, "amount_usd": 1}}}
    return said | ({"reply_to": reply_to} if reply_to else {})


def messages(
    kafka: str, topic: str, seconds: float = 240, lives: Callable[[], bool] = lambda: True, **consumer: Any
) -> Iterator[list[tuple[bytes, dict[str, Any]]]]:
    """Key and value of what stands in `topic`, and then of what comes, some at a time, until the caller has enough. Fails after so many
    seconds, and where `lives` says that nobody answers any more."""
    reader = Consumer(consumer_config(kafka, f"test-{uuid.uuid4()}", **consumer))
    reader.subscribe([topic])
    until, count = time.monotonic() + seconds, 0
    try:
        while True:
            assert time.monotonic() < until, f"{topic}: only {count} came"
            assert lives(), f"{topic}: {count} came before it ended"
            found = [(message.key() or b"", json.loads(message.value() or b"")) for message in reader.consume(500, 1.0)]
            count += len(found)
            if found:
                yield found
    finally:
        reader.close()
