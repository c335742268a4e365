"""The collector beside the OpenTelemetry Collector (Go) and Kafka's own producer: same Kafka, same event, acks=all, one run.

    python -m benchmarks.collector [--seconds 10] [--rounds 1]

(a) confluent-kafka's own producer, (b) the OpenTelemetry Collector, OTLP over HTTP, which checks nothing, (c) ours over REST and (d) over
gRPC (calls, and streams), with all checks, keys, metadata and dead letters on. What was answered is checked against the topic's offsets.
Kafka, the load and what is measured share the machine, so read ratios.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from rich.console import Console
from rich.table import Table

from benchmarks import load, tools
from benchmarks.figures import keep
from benchmarks.load import Load
from collector.v1 import collector_pb2 as pb
from headrace import event, kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import RealKafka

OTEL_TOPIC = "bench.otel"
BODIES = 64  # different requests, sent in turn
SIZES = ((1, 32), (1, 256), (100, 32), (100, 256))  # events a request, connections
STREAMS = {32: 8, 256: 32}  # streams that stand for so many connections: each has several requests on the way

Results = dict[str, float]


def one_event(number: int) -> str:
    """About 300 bytes, as a shop sends it."""
    data = {"quantity": 3, "amount_usd": 37.5, "order_id": f"order-{number:08d}", "session_id": "session-99887766", "coupon": "none"}
    attributes = {
        "specversion": "1.0",
        "id": f"0b6a7c1e-6a65-4e0f-8a3b-{number:012d}",
        "source": "website",
        "type": "purchase",
        "time": "2026-11-21T10:00:00.123Z",
        "subject": f"customer-{number % 20000:05d}",
        "dataschema": "purchase/1-0-0",
    }
    return json.dumps(attributes | {"data": data}, separators=(",", ":"))


def requests(batch: int, join: Callable[[list[str]], bytes]) -> list[bytes]:
    """Different requests of `batch` events each."""
    return [join([one_event(place * batch + number) for number in range(batch)]) for place in range(BODIES)]


def rest_body(events: list[str]) -> bytes:
    """As CloudEvents in JSON."""
    return (events[0] if len(events) == 1 else f"[{','.join(events)}]").encode()


def otlp_body(events: list[str]) -> bytes:
    """As log records, the event in the body of each."""
    records = [LogRecord(body=AnyValue(bytes_value=one.encode())) for one in events]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])]).SerializeToString()


def grpc_body(events: list[str]) -> bytes:
    """As a PublishRequest."""
    sent = pb.PublishRequest()
    for one in map(json.loads, events):
        data = json.dumps(one.pop("data"), separators=(",", ":")).encode()
        del one["specversion"]
        sent.events.append(pb.Event(**one, json=data))
    return sent.SerializeToString()


def producer_alone(address: str, seconds: int, compression: str) -> float:
    """Events/s of confluent-kafka's own producer with the same guarantees, a report for each message."""
    receipt = {"collector_id": "bench", "protocol": "cloudevents", "key_id": "0123abcd", "client": "0" * 32, "user_agent": "bench"}
    value = json.dumps(json.loads(one_event(1)) | {"received_at": event.now(), "receipt": receipt}, separators=(",", ":"))
    producer = Producer(kafka.producer_config(address, compression_type=compression))
    done = failed = 0

    def report(error: object, _: object) -> None:
        nonlocal done, failed
        done, failed = done + (error is None), failed + (error is not None)

    start, number = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        number += 1
        try:
            producer.produce(event.RAW_TOPIC, value, event.identity_key("website", str(number)), on_delivery=report)
        except BufferError:
            producer.poll(0.05)
        producer.poll(0)
    producer.flush(60)
    if failed:
        raise RuntimeError(f"{failed} messages failed")
    return done / (time.monotonic() - start)


def messages(address: str, topic: str) -> int:
    """How many messages stand in `topic`."""
    consumer = Consumer(kafka.consumer_config(address, "bench"))
    numbers = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    count = sum(consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)[1] for number in numbers)
    consumer.close()
    return count


class Side(NamedTuple):
    """One side of the comparison: what makes load on it (given events a request and connections), and where its events must be then."""

    name: str
    process: psutil.Process
    topic: str
    send: Callable[[int, int, int], Load]


class Measured(NamedTuple):
    """The figures of one load."""

    events_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_event: float
    rss_mb: float


def measure(side: Side, address: str, batch: int, connections: int, seconds: int) -> Measured:
    """One load. Ends the process where an event was answered for that is not in Kafka."""
    before, cpu = messages(address, side.topic), sum(side.process.cpu_times()[:2])
    done = side.send(batch, connections, seconds)
    cpu, rss = sum(side.process.cpu_times()[:2]) - cpu, side.process.memory_info().rss / 1e6
    events = done.requests * batch
    written = messages(address, side.topic) - before
    if written < events:
        sys.exit(f"{side.name}: {events} events were answered for, and {written} are in Kafka")
    return Measured(events / done.seconds, done.p50_ms, done.p99_ms, cpu * 1e6 / events, rss)


def sides(server: CollectorProcess, otel: tuple[str, subprocess.Popen[bytes]], folder: Path) -> list[Side]:
    """All that are compared, the ones that run as processes."""
    ours, theirs = psutil.Process(server.process.pid), psutil.Process(otel[1].pid)
    rest = {batch: requests(batch, rest_body) for batch in (1, 100)}
    otlp = {batch: requests(batch, otlp_body) for batch in (1, 100)}
    rpc = {batch: requests(batch, grpc_body) for batch in (1, 100)}
    json_ = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    protobuf = {"Content-Type": "application/x-protobuf"}
    service = "headrace.collector.v1.Collector"
    url = f"{server.rest}/v1/events"
    return [
        Side("otel", theirs, OTEL_TOPIC, lambda batch, many, s: load.http(otel[0], protobuf, otlp[batch], many, s, folder)),
        Side("rest", ours, event.RAW_TOPIC, lambda batch, many, s: load.http(url, json_, rest[batch], many, s, folder)),
        Side("grpc", ours, event.RAW_TOPIC, lambda batch, many, s: load.grpc_calls(
            server.grpc, f"{service}.Publish", KEY, rpc[batch][0], many, s, folder)),
        Side("grpc_stream", ours, event.RAW_TOPIC, lambda batch, many, s: load.grpc_streams(
            server.grpc, f"/{service}/PublishStream", KEY, rpc[batch], STREAMS[many], s, folder)),
    ]  # fmt: skip


def best(found: dict[tuple[str, int, int], Measured], alone: float) -> Results:
    """The flat results: of each side and batch the better of the numbers of connections, and the ratios."""
    results: Results = {"producer_events_per_s": round(alone)}
    for name, batch in {(name, batch): None for name, batch, _ in found}:
        many, figures = max(
            ((many, one) for (side, size, many), one in found.items() if (side, size) == (name, batch)),
            key=lambda pair: pair[1].events_per_s,
        )
        results[f"{name}_batch{batch}_connections"] = many
        results |= {f"{name}_batch{batch}_{field}": round(value, 1) for field, value in figures._asdict().items()}
    for name, other in (("rest", "otel"), ("grpc", "otel"), ("grpc_stream", "otel"), ("grpc_stream", "rest")):
        for batch in (1, 100):
            if one := _ratio(results, f"{name}_batch{batch}", f"{other}_batch{batch}"):
                results[f"{name}_batch{batch}_per_{other}_ratio"] = one
    return results


def _ratio(results: Results, of: str, to: str) -> float | None:
    first, second = (results.get(f"{side}_events_per_s") for side in (of, to))
    return round(first / second, 2) if first and second else None


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Those of the collector; quotas are kept, though nobody can reach these."""
    return {
        "COLLECTOR_NATIVE": arguments.native,
        "COLLECTOR_COMPRESSION": arguments.compression,
        "COLLECTOR_KEY_EVENTS_PER_SECOND": "100000000",
        "COLLECTOR_KEY_BYTES_PER_SECOND": "100000000000",
    }


def main() -> None:
    """Measure, print a table, and write benchmarks/results/collector.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1, help="of all measurements; the best of each counts")
    parser.add_argument("--compression", choices=("lz4", "none", "zstd"), default="lz4", help="of what goes to Kafka, on all sides")
    parser.add_argument("--only", default="", help="sides, with commas between")
    parser.add_argument("--native", choices=("on", "off"), default="on", help="the collector's native code")
    arguments = parser.parse_args()
    found: dict[tuple[str, int, int], Measured] = {}
    tools.otel(), tools.ghz(), tools.streams(), tools.wrk()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = RealKafka(folder)
        broker.start()
        try:
            kafka.ensure_topics(AdminClient({"bootstrap.servers": broker.address}), {OTEL_TOPIC: 3})
            producer_alone(broker.address, 2, arguments.compression)
            alone = producer_alone(broker.address, arguments.seconds, arguments.compression)
            with (
                collector(broker.address, folder, **_settings(arguments)) as server,
                tools.otel_running(broker.address, OTEL_TOPIC, folder, arguments.compression) as otel,
            ):
                server.wait()
                compared = [side for side in sides(server, otel, folder) if not arguments.only or side.name in arguments.only.split(",")]
                for side in compared:
                    side.send(100, 32, 2)
                for _ in range(arguments.rounds):
                    for batch, many in SIZES:
                        for side in compared:
                            figures = measure(side, broker.address, batch, many, arguments.seconds)
                            place = (side.name, batch, many)
                            found[place] = max(found.get(place, figures), figures)
                server.stop()
        finally:
            broker.kill()
    results = best(found, alone)
    table = Table("", "events a request", "connections", "events/s", "p50 ms", "p99 ms", "CPU µs an event", "RSS MB", title="Collectors")
    for (side_name, batch, many), one in sorted(found.items(), key=lambda item: (item[0][1], item[0][2])):
        cells = (f"{one.events_per_s:,.0f}", f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.cpu_us_per_event:.1f}", f"{one.rss_mb:.0f}")
        table.add_row(side_name, str(batch), str(many), *cells)
    Console().print(table, f"confluent-kafka's own producer, a report for each message: {alone:,.0f} events/s")
    Console().print({name: value for name, value in results.items() if name.endswith("ratio")})
    if arguments.native == "on" and not arguments.only:
        keep("collector", results)


if __name__ == "__main__":
    main()
