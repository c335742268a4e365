"""Scoring through Kafka: requests a second and the time to one answer, of the worker and of Spark (no platform is needed).

    make bench-queue [ARGS="--requests 200000 --rounds 3"]

Both answer the same requests of the same topic with the same model, in turns within one run, each from the first message on. The rate is
that of the answers between the first fifth and the last, so that no start counts in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import psutil
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from benchmarks import figures
from enrichment_api.queue.stage import REPLIES, REQUESTS
from enrichment_api.train import train
from headrace.kafka import consumer_config, ensure_topics, producer_config
from runtime import java
from runtime.component import Place
from runtime.servers.models import Models
from runtime.servers.stream import ScoringStream, jars
from tests.collector_real_kafka import ROOT, RealKafka
from tests.enrichment_api_process import AWAY
from tests.unit.test_train import write_purchases
from verify.ports import free_port

_PLACE = Place(ROOT, {})
_SINGLES = {"worker": 200, "stream": 20}
_PATIENCE = 600.0  # seconds for a round
_MINE = f"{REPLIES}.bench"


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queue")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for part in (Models(), ScoringStream()):
        part.fetch(_PLACE, print)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(write_purchases(folder / "purchases.txt"), folder / "model")
        kafka = RealKafka(folder)
        kafka.start()
        try:
            ensure_topics(AdminClient({"bootstrap.servers": kafka.address}), {REQUESTS: 3, REPLIES: 1, _MINE: 1})
            _ask(kafka.address, given.requests)
            for number in range(given.rounds):
                for way in _SINGLES:
                    for figure, value in _round(way, kafka.address, folder, given.requests).items():
                        found.setdefault(f"{way}_{figure}", []).append(value)
                print(f"round {number + 1} of {given.rounds}", file=sys.stderr)
        finally:
            kafka.kill()
    said: dict[str, float] = {name: round(median(values), 1) for name, values in found.items()}
    said["rate_stream_to_worker"] = round(said["stream_requests_per_second"] / said["worker_requests_per_second"], 2)
    figures.show(said)
    figures.keep("queue", said)


def _ask(kafka: str, count: int) -> None:
    producer = Producer(producer_config(kafka))
    for number in range(count):
        producer.produce(REQUESTS, _request(str(number), REPLIES), str(number))
        if number % 10_000 == 9_999:
            producer.flush(60)
    if producer.flush(120):
        sys.exit("Kafka did not take the requests")


def _request(name: str, reply_to: str) -> bytes:
    number = crc32(name.encode()) % 1_000_003
    event: dict[str, Any] = {
        "id": name,
        "source": "bench",
        "type": "purchase",
        "time": "2026-11-22T00:00:00Z",
        "subject": f"c-{number % 50_000}",
    }
    event["data"] = {"quantity": 1 + number % 7, "amount_usd": number / 100}
    return json.dumps({"correlation_id": name, "reply_to": reply_to, "event": event}).encode()


def _round(way: str, kafka: str, folder: Path, requests: int) -> dict[str, float]:
    """What is in the topic from its beginning, and then one request at a time."""
    counter = Consumer(consumer_config(kafka, f"bench-{uuid.uuid4()}"))
    replies = TopicPartition(REPLIES, 0)

    def answers() -> int:  # with a marker for each of the worker's transactions, some in a thousand
        return int(counter.get_watermark_offsets(replies, timeout=10)[1])

    before = answers()
    with _running(way, kafka, folder) as process:
        _until(process, lambda: answers() - before >= requests // 5)
        count, began, spent = answers() - before, time.monotonic(), _processor_seconds(process)
        _until(process, lambda: answers() - before >= requests)
        seconds, spent = time.monotonic() - began, _processor_seconds(process) - spent
        memory = sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])
        time.sleep(3)  # what asked one at a time in earlier rounds is answered again, to nobody
        times = sorted(_singles(kafka, _SINGLES[way]))
    counter.close()
    return {
        "requests_per_second": (requests - count) / seconds,
        "requests_per_cpu_second": (requests - count) / spent,
        "one_p50_ms": 1000 * median(times),
        "one_p99_ms": 1000 * times[-max(1, len(times) // 100)],
        "memory_mb": memory / 1e6,
    }


@contextmanager
def _running(way: str, kafka: str, folder: Path) -> Iterator[psutil.Process]:
    """The worker, or the stream, that has answered nothing yet."""
    new = uuid.uuid4().hex
    env = {**os.environ, **AWAY, "KAFKA_BOOTSTRAP_SERVERS": kafka, "STATE_DIR": str(folder), "JAVA17_HOME": str(java.home())}
    env |= {"ENRICHMENT_API_MODEL_DIR": str(folder / "model"), "ENRICHMENT_API_DATA_FILE": "none"}
    env |= {"SCORING_WORKER_GROUP": new, "SCORING_WORKER_METRICS_PORT": str(free_port())}
    env |= {"SCORING_STREAM_CHECKPOINT": str(folder / new), "SPARK_KAFKA_JARS": str(jars(_PLACE))}
    spark = [str(_PLACE.venvs / "ml/bin/python"), "-m", "ml", "stream"]
    with (folder / "log").open("ab") as log:
        command = spark if way == "stream" else [sys.executable, "-m", "enrichment_api.queue.main"]
        started = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(60)


def _until(process: psutil.Process, true: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > until or not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            sys.exit(f"{' '.join(process.cmdline()) or 'it'} did not answer")
        time.sleep(0.02)


def _processor_seconds(process: psutil.Process) -> float:
    """Of the process and all below it."""
    times = [each.cpu_times() for each in [process, *process.children(recursive=True)]]
    return sum(each.user + each.system for each in times)


def _singles(kafka: str, count: int) -> Iterator[float]:
    """Seconds from a request to its answer."""
    reader = Consumer(consumer_config(kafka, f"bench-{uuid.uuid4()}"))
    reader.assign([TopicPartition(_MINE, 0, OFFSET_END)])
    reader.consume(1, 1.0)
    producer = Producer({**producer_config(kafka), "linger.ms": 0})
    for _ in range(count):
        name = uuid.uuid4().hex
        began = time.monotonic()
        producer.produce(REQUESTS, _request(name, _MINE), name)
        producer.poll(0)
        while not (found := reader.consume(1, 10.0)) or found[0].key() != name.encode():
            if time.monotonic() - began > _PATIENCE:
                sys.exit("a single request was not answered")
        yield time.monotonic() - began
    producer.flush(10)
    reader.close()


if __name__ == "__main__":
    main()
