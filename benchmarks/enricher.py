"""`python -m benchmarks.enricher`: events a second through the enricher on the running platform, without scores and with them.

The enricher runs as a process of its own on topics of its own, with its default settings: once with events that ask for no enrichment
(validation alone), once with purchases, each scored by the platform's enrichment API. The clock runs from the first batch made final to the
last. Processor seconds are those of the enricher's process with its Kafka client, and of the enrichment API; Kafka's own are not counted.
"""

import argparse
import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection

import httpx
import msgspec
import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import Counter

from benchmarks.figures import keep, show
from headrace import event, kafka, metrics, service
from headrace.event import RawEvent, Receipt
from headrace.service import Topics
from headrace.settings import use_env_file

_CUSTOMERS = 20_000
_CLICK = b'{"button_id": "buy-%d", "text": "Buy now", "url": "https://shop.example.com/products/%d", "session_id": "0b8a1c52d6b0%04d"}'
_PURCHASE = b'{"order_id": "o-%d", "quantity": %d, "amount_usd": %d.99, "session_id": "0b8a1c52d6b04f2f"}'


def _click(number: int) -> tuple[str, bytes]:
    return "button_click", _CLICK % (number % 9, number, number % 10_000)


def _purchase(number: int) -> tuple[str, bytes]:
    return "purchase", _PURCHASE % (number, 1 + number % 5, number % 90)


_KINDS: dict[str, Callable[[int], tuple[str, bytes]]] = {"enricher": _click, "enricher_scored": _purchase}


def _fill(topics: Topics, name: str, count: int) -> None:
    producer = Producer({**kafka.producer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"]), "queue.buffering.max.messages": 1_000_000})
    for number in range(count):
        now = event.now()
        type, data = _KINDS[name](number)
        raw = RawEvent(
            id=f"{topics.prefix}{number}",
            source="benchmark",
            type=type,
            time=now,
            received_at=now,
            dataschema=f"{type}/1-0-0",
            data=msgspec.Raw(data),
            receipt=Receipt(collector_id="benchmark", protocol="segment", key_id="web"),
            subject=f"{number % _CUSTOMERS:05d}",
        )
        producer.produce(topics.raw, event.encode(raw), event.identity_key(raw.source, raw.id))
        producer.poll(0)
    producer.flush()


def _measure(name: str, topics: Topics, count: int, answer: Connection) -> None:
    """In a process of its own: run the enricher until it has made `count` messages final."""
    from enricher.main import build
    from enricher.settings import EnricherSettings

    os.environ["ENRICHER_GROUP"] = f"{topics.prefix}group"
    stop = threading.Event()
    serve = build(EnricherSettings.load(), stop, topics)
    service.spare_the_collector()

    def watch() -> None:
        while not (first := _total(metrics.MESSAGES)):
            time.sleep(0.005)
        began, used, of_api = time.perf_counter(), time.process_time(), _api_seconds()
        while (now := _total(metrics.MESSAGES)) < count:
            time.sleep(0.005)
        events, seconds, processor = now - first, time.perf_counter() - began, time.process_time() - used
        figures = {
            f"{name}_events_per_s": events / seconds,
            f"{name}_events_per_processor_s": events / processor,
            f"{name}_rss_mb": psutil.Process().memory_info().rss / 1e6,
        }
        if name == "enricher_scored":
            figures["enrichment_api_events_per_processor_s"] = events / (_api_seconds() - of_api)
            # Any here, and this was a measurement of something else.
            figures["enricher_scored_events_without_score"] = _total(metrics.ENRICHMENT_SKIPPED, metrics.NOT_ENRICHED)
        answer.send({figure: round(value) for figure, value in figures.items()})
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    serve()


def _total(*counters: Counter) -> float:
    samples = (sample for counter in counters for family in counter.collect() for sample in family.samples)
    return sum(float(sample.value) for sample in samples if sample.name.endswith("_total"))


def _api_seconds() -> float:
    """Processor seconds of the platform's enrichment API up to now."""
    lines = httpx.get(f"{os.environ['ENRICHMENT_API_URL']}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("process_cpu_seconds_total ")))


def measured(name: str, count: int) -> dict[str, int]:
    """The figures with one kind of event."""
    topics = Topics(f"benchmark-{uuid.uuid4().hex[:8]}.")
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    wanted = {topics.raw: 3, topics.enriched: 3, topics.dead_letter("enricher"): 1}
    kafka.ensure_topics(admin, wanted)
    try:
        _fill(topics, name, count)
        processes = multiprocessing.get_context("spawn")
        ours, theirs = processes.Pipe()
        process = processes.Process(target=_measure, args=(name, topics, count, theirs))
        process.start()
        theirs.close()
        figures: dict[str, int] = ours.recv()
        process.join()
        return figures
    finally:
        for done in admin.delete_topics(list(wanted)).values():
            done.result()


def main() -> None:
    """Measure, print a table, and write it to benchmarks/results/enricher.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=300_000, help="of each kind (default 300,000)")
    said = arguments.parse_args()
    use_env_file()
    figures: dict[str, int] = {}
    for name in _KINDS:
        figures |= measured(name, said.events)
    show(figures)
    keep("enricher", figures)


if __name__ == "__main__":
    main()
