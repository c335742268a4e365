"""`python -m benchmarks.loaders`: events a second through the enricher and both loaders, on the running platform.

Each consumer runs as a process of its own on topics (and lake tables) of its own, so the platform's data stays as it is; documents go
into today's index under the source `benchmark`, and are removed afterwards. The clock runs from the first batch made final to the last.
Events ask for no enrichment: the enrichment API has a measurement of its own.
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
_SETTINGS = {"enricher": "ENRICHER", "realtime": "REALTIME_LOADER", "batch": "BATCH_LOADER"}


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
        if consumer == "enricher":
            producer.produce(topics.raw, event.encode(raw), event.identity_key(_SOURCE, raw.id))
        else:
            enriched = EnrichedEvent(**msgspec.structs.asdict(raw), enriched_at=now)
            producer.produce(topics.enriched, event.encode(enriched), event.identity_key(_SOURCE, raw.id))
    producer.flush()


def _built(consumer: str, stop: threading.Event, topics: Topics, namespace: str) -> Callable[[], None]:
    os.environ[f"{_SETTINGS[consumer]}_GROUP"] = f"{topics.prefix}group"
    if consumer == "enricher":
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
        first, began, used = done(), time.perf_counter(), time.process_time()
        while (now := done()) < count:
            time.sleep(0.005)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        memory = psutil.Process().memory_info().rss
        answer.send(
            {
                f"{consumer}_events_per_s": round((now - first) / seconds),
                f"{consumer}_events_per_processor_s": round((now - first) / processor),
                f"{consumer}_rss_mb": round(memory / 1e6),
            }
        )
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    serve()


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
    arguments.add_argument("--documents", type=int, default=40_000, help="for the real-time loader (default 40,000)")
    said = arguments.parse_args()
    use_env_file()
    counts = {"enricher": said.events, "realtime": said.documents, "batch": said.events}
    figures: dict[str, int] = {}
    for consumer, count in counts.items():
        figures |= measured(consumer, count)
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
