"""`python -m benchmarks.loaders`: events a second through the enricher and both loaders, on the running platform.

The loaders get messages of 1.2 kB in batches of several sizes; beside them, in the same run and with the same messages, runs what one would
write instead: a sketch of a batch loader, and `elasticsearch.helpers.parallel_bulk`.

Each consumer runs as a process of its own on topics (and lake tables) of its own, so the platform's data stays as it is; documents go
into today's index under the source `benchmark`, and are removed afterwards. The clock runs from the first batch made final to the last.
Events ask for no enrichment: the enrichment API has a measurement of its own.
"""

import argparse
import json
import multiprocessing
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any

import httpx
import msgspec
import psutil
import pyarrow as pa
from confluent_kafka import Consumer, Message, Producer
from confluent_kafka.admin import AdminClient
from elasticsearch import Elasticsearch, helpers

from benchmarks.figures import keep, show
from headrace import event, kafka, lake, service
from headrace.event import EnrichedEvent, RawEvent, Receipt
from headrace.service import Topics
from headrace.settings import use_env_file
from loaders.realtime.mapping import event_document

_BATCH_ROWS = (1000, 10_000, 100_000)
_BULK_MESSAGES = (500, 2000, 8000)  # the second is the default
_SOURCE = "benchmark"
_DATA = json.dumps(
    {
        "button_id": "buy",
        "text": "Buy now, while it lasts, at the price of yesterday",
        "url": "https://shop.example.com/products/1234567890?from=front",
        "session_id": "0b8a1c52d6b04f2f",
    }
).encode()
_WORDS = ["red", "blue", "small", "large", "shirt", "shoes", "garden", "table", "lamp", "book", "music", "summer", "winter", "sale", "new"]
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
_SETTINGS = {"enricher": "ENRICHER", "realtime": "REALTIME_LOADER", "batch": "BATCH_LOADER"}


def _small(_: random.Random) -> tuple[str, bytes, bytes]:
    return "button_click", _DATA, b"{}"


def _large(chance: random.Random) -> tuple[str, bytes, bytes]:
    """A purchase of some articles, so that the message is of 1.2 kB and no more like the others than real ones are."""
    items = [
        {
            "sku": f"SKU-{chance.randrange(10**6):06d}",
            "name": " ".join(chance.choices(_WORDS, k=5)),
            "price": chance.randrange(99_999) / 100,
            "quantity": chance.randrange(1, 9),
        }
        for _ in range(4)
    ]
    data = {
        "order_id": str(uuid.UUID(int=chance.getrandbits(128))),
        "session": f"{chance.getrandbits(64):016x}",
        "items": items,
        "total": chance.randrange(999_999) / 100,
        "currency": "EUR",
        "url": f"https://shop.example.com/checkout/{chance.getrandbits(32):08x}?from={chance.choice(_WORDS)}",
        "note": " ".join(chance.choices(_WORDS, k=12)),
    }
    return "purchase", json.dumps(data).encode(), b'{"churn": {"model": "churn", "version": "1", "score": %.6f}}' % chance.random()


def _events(prefix: str, count: int, kind: Callable[[random.Random], tuple[str, bytes, bytes]]) -> Iterator[EnrichedEvent]:
    chance = random.Random(1)
    for number in range(count):
        now = event.now()
        type, data, enrichment = kind(chance)
        yield EnrichedEvent(
            id=f"{prefix}{number:016}",
            source=_SOURCE,
            type=type,
            time=now,
            received_at=now,
            enriched_at=now,
            dataschema=f"{type}/1-0-0",
            data=msgspec.Raw(data),
            enrichment=msgspec.Raw(enrichment),
            receipt=Receipt(
                collector_id="benchmark", protocol="segment", key_id="web", client=f"{chance.getrandbits(128):032x}", user_agent=_AGENT
            ),
            subject=f"c{chance.randrange(100_000)}",
        )


def _fill(topics: Topics, consumer: str, count: int) -> None:
    producer = Producer({**kafka.producer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"]), "queue.buffering.max.messages": 1_000_000})
    for one in _events(topics.prefix, count, _small if consumer == "enricher" else _large):
        key = event.identity_key(_SOURCE, one.id)
        if consumer == "enricher":
            of_raw = {name: value for name, value in msgspec.structs.asdict(one).items() if name not in ("enriched_at", "enrichment")}
            producer.produce(topics.raw, event.encode(RawEvent(**of_raw)), key)
        else:
            producer.produce(topics.enriched, event.encode(one), key)
        producer.poll(0)
    producer.flush()


def _built(consumer: str, stop: threading.Event, topics: Topics, namespace: str) -> Callable[[], None]:
    os.environ[f"{_SETTINGS[consumer]}_GROUP"] = f"{topics.prefix}{uuid.uuid4().hex}"
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


def _measure(consumer: str, topics: Topics, namespace: str, count: int, settings: Mapping[str, str], answer: Connection) -> None:
    """In a process of its own: run the consumer until it has made `count` messages final."""
    os.environ.update({f"{_SETTINGS[consumer]}_{name}": value for name, value in settings.items()})
    stop = threading.Event()
    serve = _built(consumer, stop, topics, namespace)
    service.spare_the_collector()
    from headrace.metrics import MESSAGES

    def watch() -> None:
        peak = 0

        def done() -> float:
            nonlocal peak
            peak = max(peak, psutil.Process().memory_info().rss)
            time.sleep(0.01)
            return next(iter(MESSAGES.collect())).samples[0].value

        while not done():
            pass
        first, began, used = done(), time.perf_counter(), time.process_time()
        while (now := done()) < count:
            pass
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        answer.send(_figures(now - first, seconds, processor, peak))
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    serve()


def _figures(events: float, seconds: float, processor: float, peak: int) -> dict[str, int]:
    per_second = {"events_per_s": round(events / seconds), "events_per_processor_s": round(events / processor)}
    return per_second | {"peak_rss_mb": round(peak / 1e6)}


def _sketch(topics: Topics, namespace: str, count: int, rows: int, answer: Connection) -> None:
    """What one would write in an afternoon: consume, decode, a list for each column, PyIceberg's `append`, and the offsets beside it."""
    from loaders.batch.rows import EVENTS
    from loaders.batch.table import open_table

    consumer = Consumer(kafka.consumer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"], f"{topics.prefix}sketch-{rows}"))
    consumer.subscribe([topics.enriched])
    table = open_table(lake.load_catalog(lake.LakeSettings.load()), f"{namespace}.sketch", EVENTS, "received_at")
    receipt = ("collector_id", "protocol", "key_id", "client", "user_agent")
    messages: list[Message] = []
    offsets: dict[str, Any] = {}
    done, peak, began, used = 0, 0, 0.0, 0.0
    while done < count:
        messages += consumer.consume(10_000, 1.0)
        if len(messages) < rows:
            continue
        events = [event.decode_enriched(message.value() or b"") for message in messages]
        columns: dict[str, list[object]] = {}
        for field in EVENTS:
            name = field.name
            if name.startswith("kafka_"):
                columns[name] = [getattr(message, name.removeprefix("kafka_"))() for message in messages]
            elif name == "loaded_at":
                columns[name] = [datetime.now(UTC)] * len(events)
            elif name in ("data", "enrichment"):
                columns[name] = [bytes(getattr(one, name)).decode() for one in events]
            elif name in receipt:
                columns[name] = [getattr(one.receipt, name) for one in events]
            elif pa.types.is_timestamp(field.type):
                columns[name] = [datetime.fromisoformat(getattr(one, name)) for one in events]
            else:
                columns[name] = [getattr(one, name) for one in events]
        offsets |= {f"offset.{message.partition()}": str(message.offset()) for message in messages}
        with table.transaction() as transaction:
            transaction.append(pa.table(columns, schema=EVENTS))
            transaction.set_properties(**offsets)
        if not done:
            first, began, used = len(messages), time.perf_counter(), time.process_time()
        done += len(messages)
        peak = max(peak, psutil.Process().memory_info().rss)
        messages = []
    answer.send(_figures(done - first, time.perf_counter() - began, time.process_time() - used, peak))
    consumer.close()


def _parallel_bulk(topics: Topics, count: int, answer: Connection) -> None:
    """The same documents, ready made, through the helper of Elasticsearch's own client with its own defaults."""
    client = Elasticsearch(os.environ["ELASTICSEARCH_URL"])
    documents = (event_document(one) for one in _events(f"{topics.prefix}bulk-", count, _large))
    actions = [{"_op_type": "create", "_index": of.index, "_id": of.id, "_source": msgspec.json.decode(of.source)} for of in documents]
    began, used = time.perf_counter(), time.process_time()
    for fine, item in helpers.parallel_bulk(client, actions):
        if not fine:
            raise RuntimeError(f"parallel_bulk: {item}")
    seconds, processor = time.perf_counter() - began, time.process_time() - used
    answer.send(_figures(count, seconds, processor, psutil.Process().memory_info().rss))


def _in_a_process(target: Callable[..., None], *arguments: object) -> dict[str, int]:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    figures: dict[str, int] = ours.recv()
    process.join()
    return figures


def _named(name: str, figures: Mapping[str, int]) -> dict[str, float]:
    return {f"{name}_{figure}": value for figure, value in figures.items()}


@contextmanager
def _filled(consumer: str, count: int) -> Iterator[Callable[[], tuple[Topics, str]]]:
    """Topics with `count` messages, and for each measurement a group and a namespace of its own."""
    name = uuid.uuid4().hex[:8]
    admin = AdminClient({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]})
    topics = Topics(f"benchmark-{name}.")
    wanted = {topics.raw: 3, topics.enriched: 3} | dict.fromkeys(topics.to_load[1:], 1)
    kafka.ensure_topics(admin, wanted)
    namespaces: list[str] = []

    def fresh() -> tuple[Topics, str]:
        namespaces.append(f"benchmark_{name}_{len(namespaces)}")
        return topics, namespaces[-1]

    try:
        _fill(topics, consumer, count)
        yield fresh
    finally:
        for done in admin.delete_topics(list(wanted)).values():
            done.result()
        for namespace in namespaces:
            _clean_up(consumer, namespace)


def measured(consumer: str, count: int) -> dict[str, float]:
    """The figures of one consumer with its default settings."""
    with _filled(consumer, count) as fresh:
        return _named(consumer, _in_a_process(_measure, consumer, *fresh(), count, {}))


def batch_by_size(count: int) -> dict[str, float]:
    """The batch loader with batches of several sizes, and the sketch with the largest."""
    figures: dict[str, float] = {}
    with _filled("batch", count) as fresh:
        for rows in _BATCH_ROWS:
            most = min(count, rows * 40)
            settings = {"MAX_ROWS": str(rows), "MAX_BYTES": "1000000000"}
            figures |= _named(f"batch_{rows}_rows", _in_a_process(_measure, "batch", *fresh(), most, settings))
        figures |= _named(f"batch_sketch_{rows}_rows", _in_a_process(_sketch, *fresh(), count, rows))
    ours, theirs = (figures[f"{name}_{rows}_rows_events_per_processor_s"] for name in ("batch", "batch_sketch"))
    return figures | {"batch_per_sketch_processor_ratio": round(ours / theirs, 2)}


def realtime_by_size(count: int) -> dict[str, float]:
    """The real-time loader with batches of several sizes, and `parallel_bulk` with the same documents before and after."""
    figures: dict[str, float] = {}
    with _filled("realtime", count) as fresh:
        topics, _ = fresh()
        bulk = [_in_a_process(_parallel_bulk, topics, count)]
        for messages in _BULK_MESSAGES:
            settings = {"MAX_BATCH_MESSAGES": str(messages)}
            # Each size finds documents of its own: what is there already costs Elasticsearch less.
            figures |= _named(f"realtime_{messages}_messages", _in_a_process(_measure, "realtime", *fresh(), count, settings))
            _remove_documents()
        bulk.append(_in_a_process(_parallel_bulk, topics, count))
    best = max(bulk, key=lambda one: one["events_per_s"])
    ours = figures[f"realtime_{_BULK_MESSAGES[1]}_messages_events_per_s"]
    ratio = {"realtime_per_parallel_bulk_ratio": round(ours / best["events_per_s"], 2)}
    return figures | _named("parallel_bulk", best) | ratio


def _clean_up(consumer: str, namespace: str) -> None:
    if consumer == "realtime":
        _remove_documents()
    if consumer == "batch":
        catalog = lake.load_catalog(lake.LakeSettings.load())
        for table in catalog.list_tables(namespace):
            catalog.purge_table(table)
        catalog.drop_namespace(namespace)


def _remove_documents() -> None:
    query = {"query": {"term": {"source": _SOURCE}}}
    httpx.post(f"{os.environ['ELASTICSEARCH_URL']}/events_all/_refresh", timeout=120).raise_for_status()
    for hit in iter(lambda: _hits(query), []):
        lines = "".join(f'{{"delete":{{"_index":"{one["_index"]}","_id":"{one["_id"]}"}}}}\n' for one in hit)
        url = f"{os.environ['ELASTICSEARCH_URL']}/_bulk?refresh=true"
        httpx.post(url, content=lines, headers={"content-type": "application/x-ndjson"}, timeout=120).raise_for_status()


def _hits(query: Mapping[str, object]) -> list[Mapping[str, str]]:
    url = f"{os.environ['ELASTICSEARCH_URL']}/events_all/_search"
    found: list[Mapping[str, str]] = httpx.post(url, json={"size": 10_000, "_source": False, **query}, timeout=120).json()["hits"]["hits"]
    return found


def main() -> None:
    """Measure, print a table, and write it to benchmarks/results/loaders.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--events", type=int, default=400_000, help="for the enricher and the batch loader (default 400,000)")
    arguments.add_argument("--documents", type=int, default=40_000, help="for the real-time loader (default 40,000)")
    said = arguments.parse_args()
    use_env_file()
    figures = measured("enricher", said.events) | batch_by_size(said.events) | realtime_by_size(said.documents)
    show(figures)
    keep("loaders", figures)


if __name__ == "__main__":
    main()
