"""`python -m benchmarks.loaders`: events a second through the enricher and both loaders, on the running platform.

Each consumer runs as a process of its own on topics (and lake tables) of its own, so the platform's data stays as it is; documents go
into today's index under the source `benchmark`, and are removed afterwards. The clock runs from the first batch made final to the last.
The enricher runs twice: with events that ask for no enrichment (validation alone), and with purchases, each scored by the platform's
enrichment API.
"""

import argparse
import json
import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path

import httpx
import msgspec
import psutil
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Table

from headrace import event, kafka, lake
from headrace.event import EnrichedEvent, RawEvent, Receipt
from headrace.service import Topics
from headrace.settings import Settings, use_env_file

RESULT = Path(__file__).resolve().parent / "results" / "loaders.json"
_SOURCE = "benchmark"
_DATA = json.dumps(
    {
        "button_id": "buy",
        "text": "Buy now, while it lasts, at the price of yesterday",
        "url": "https://shop.example.com/products/1234567890?from=front",
        "session_id": "0b8a1c52d6b04f2f",
    }
).encode()
_PURCHASE = (
    b'{"order_id": "o-%d", "quantity": %d, "amount_usd": %d.99, "session_id": "0b8a1c52d6b04f2f", "page": "https://shop.example.com/cart"}'
)
_CUSTOMERS = 20_000
_SETTINGS = {"enricher": "ENRICHER", "enricher_scored": "ENRICHER", "realtime": "REALTIME_LOADER", "batch": "BATCH_LOADER"}


class _Lake(lake.LakeSettings, Settings):
    """Where the tables of the measurement are dropped from."""


def _fill(topics: Topics, consumer: str, count: int) -> None:
    producer = Producer({**kafka.producer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"]), "queue.buffering.max.messages": 1_000_000})
    for number in range(count):
        now = event.now()
        raw = RawEvent(
            id=f"{topics.prefix}{number}",
            source=_SOURCE,
            type="button_click",
            time=now,
            received_at=now,
            dataschema="button_click/1-0-0",
            data=msgspec.Raw(_DATA),
            receipt=Receipt(collector_id="benchmark", protocol="cloudevents"),
        )
        if consumer == "enricher_scored":
            raw.type, raw.dataschema, raw.subject = "purchase", "purchase/1-0-0", f"{number % _CUSTOMERS:05d}"
            raw.data = msgspec.Raw(_PURCHASE % (number, 1 + number % 5, number % 90))
        if consumer.startswith("enricher"):
            producer.produce(topics.raw, event.encode(raw), event.identity_key(_SOURCE, raw.id))
        else:
            enriched = EnrichedEvent(**msgspec.structs.asdict(raw), enriched_at=now)
            producer.produce(topics.enriched, event.encode(enriched), event.identity_key(_SOURCE, raw.id))
    producer.flush()


def _built(consumer: str, stop: threading.Event, topics: Topics, namespace: str) -> Callable[[], None]:
    os.environ[f"{_SETTINGS[consumer]}_GROUP"] = f"{topics.prefix}group"
    if consumer.startswith("enricher"):
        from enricher.main import build as enricher
        from enricher.settings import EnricherSettings

        return enricher(EnricherSettings.load(), stop, topics)
    if consumer == "realtime":
        from loaders.realtime.main import build as realtime
        from loaders.realtime.settings import RealtimeLoaderSettings

        return realtime(RealtimeLoaderSettings.load(), stop, topics)
    from loaders.batch.main import build as batch
    from loaders.batch.settings import BatchLoaderSettings

    return batch(BatchLoaderSettings.load(), stop, topics, namespace)


def _measure(consumer: str, topics: Topics, namespace: str, count: int, answer: Connection) -> None:
    """In a process of its own: run the consumer until it has made `count` messages final."""
    stop = threading.Event()
    serve = _built(consumer, stop, topics, namespace)
    from headrace.metrics import MESSAGES

    def watch() -> None:
        def done() -> float:
            return next(iter(MESSAGES.collect())).samples[0].value

        while not done():
            time.sleep(0.005)
        first, began, used, of_api = done(), time.perf_counter(), time.process_time(), _api_seconds()
        while (now := done()) < count:
            time.sleep(0.005)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        of_api = _api_seconds() - of_api
        memory = psutil.Process().memory_info().rss
        figures = {
            f"{consumer}_events_per_s": round((now - first) / seconds),
            f"{consumer}_events_per_processor_s": round((now - first) / processor),
            f"{consumer}_rss_mb": round(memory / 1e6),
        }
        if consumer == "enricher_scored":
            figures["enrichment_api_events_per_processor_s"] = round((now - first) / of_api)
            figures["enricher_scored_events_without_score"] = _without_score()
        answer.send(figures)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    serve()


def _api_seconds() -> float:
    """Processor seconds of the platform's enrichment API up to now."""
    lines = httpx.get(f"{os.environ['ENRICHMENT_API_URL']}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("process_cpu_seconds_total ")))


def _without_score() -> int:
    """How many of this process's events went on without: more than a few, and the measurement is one of something else."""
    from headrace.metrics import ENRICHMENT_SKIPPED, NOT_ENRICHED

    samples = (sample for metric in (ENRICHMENT_SKIPPED, NOT_ENRICHED) for of in metric.collect() for sample in of.samples)
    return round(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def measured(consumer: str, count: int) -> Mapping[str, int]:
    """The figures of one consumer."""
    name = uuid.uuid4().hex[:8]
    topics, namespace = Topics(f"benchmark-{name}."), f"benchmark_{name}"
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    wanted = {topics.raw: 3, topics.enriched: 3} | dict.fromkeys(topics.to_load[1:], 1)
    kafka.ensure_topics(admin, wanted)
    try:
        _fill(topics, consumer, count)
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_measure, args=(consumer, topics, namespace, count, theirs))
        process.start()
        theirs.close()
        figures: Mapping[str, int] = ours.recv()
        process.join()
        return figures
    finally:
        for done in admin.delete_topics(list(wanted)).values():
            done.result()
        _clean_up(consumer, namespace)


def _clean_up(consumer: str, namespace: str) -> None:
    if consumer == "realtime":
        query = {"query": {"term": {"source": _SOURCE}}}
        for hit in iter(lambda: _hits(query), []):
            lines = "".join(f'{{"delete":{{"_index":"{one["_index"]}","_id":"{one["_id"]}"}}}}\n' for one in hit)
            url = f"{os.environ['ELASTICSEARCH_URL']}/_bulk?refresh=true"
            httpx.post(url, content=lines, headers={"content-type": "application/x-ndjson"}, timeout=120).raise_for_status()
    if consumer == "batch":
        catalog = lake.load_catalog(_Lake.load())
        for table in catalog.list_tables(namespace):
            catalog.purge_table(table)
        catalog.drop_namespace(namespace)


def _hits(query: Mapping[str, object]) -> list[Mapping[str, str]]:
    url = f"{os.environ['ELASTICSEARCH_URL']}/events_all/_search"
    found: list[Mapping[str, str]] = httpx.post(url, json={"size": 10_000, "_source": False, **query}, timeout=120).json()["hits"]["hits"]
    return found


def main() -> None:
    """Measure, print a table, and write it to benchmarks/results/loaders.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=200_000, help="for the enricher and the batch loader (default 200,000)")
    arguments.add_argument("--only", choices=_SETTINGS, help="measure one consumer, print and write nothing else")
    arguments.add_argument("--documents", type=int, default=40_000, help="for the real-time loader (default 40,000)")
    said = arguments.parse_args()
    use_env_file()
    counts = {"enricher": said.events, "enricher_scored": said.events, "realtime": said.documents, "batch": said.events}
    figures: dict[str, int] = {}
    for consumer, count in counts.items():
        if said.only in (None, consumer):
            figures |= measured(consumer, count)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    if said.only:
        return
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
