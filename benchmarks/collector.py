"""Load on the collector over loopback, with a Kafka of its own: events/s at 1 and at 100 events a request.

    python -m benchmarks.collector [--seconds 10]

The collector and Kafka run with all checks and guarantees on. `wrk` makes the load where it is installed; where not, a client of this
module does, which costs more than the collector, so its figures say less. What was answered is checked against the topic's offsets.
"""

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition
from rich.console import Console
from rich.table import Table

from headrace import event, kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import RealKafka

RESULTS = Path(__file__).parent / "results" / "collector.json"
BODIES = 64  # different requests, sent in turn

_LUA = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = wrk.format("POST", "/v1/events", wrk.headers, line) end
local n = 0
request = function() n = n %% #bodies + 1; return bodies[n] end
"""


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


def bodies(batch: int) -> list[str]:
    """Requests of `batch` events each."""
    events = [[one_event(place * batch + number) for number in range(batch)] for place in range(BODIES)]
    return [group[0] if batch == 1 else f"[{','.join(group)}]" for group in events]


def load(server: CollectorProcess, batch: int, connections: int, seconds: int, folder: Path) -> tuple[int, float, float]:
    """Requests answered 200, seconds taken, and the 99th percentile of their latency in ms. Raises RuntimeError for any other answer."""
    if not shutil.which("wrk"):
        return asyncio.run(_own_load(server, batch, connections, seconds))
    lines = folder / f"bodies-{batch}"
    lines.write_text("\n".join(bodies(batch)))
    script = folder / f"load-{batch}.lua"
    script.write_text(_LUA % lines)
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", str(script)]
    command += ["-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json", server.rest]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said or "\n  0 requests" in said:
        raise RuntimeError(f"not every request was answered 200:\n{said}")
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", said).groups()  # type: ignore[union-attr]
    p99, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    return int(requests), float(took), float(p99) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


async def _own_load(server: CollectorProcess, batch: int, connections: int, seconds: int) -> tuple[int, float, float]:
    host, port = server.rest.removeprefix("http://").split(":")
    head = f"POST /v1/events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n{body}".encode() for body in bodies(batch)]
    latencies: list[float] = []
    start = time.monotonic()

    async def connection(turn: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.monotonic() - start < seconds:
            turn += 1
            sent = time.perf_counter()
            writer.write(requests[turn % BODIES])
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer)
            await reader.readexactly(int(length.group(1)) if length else 0)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"not every request was answered 200: {answer!r}")
            latencies.append(time.perf_counter() - sent)
        writer.close()

    await asyncio.gather(*(connection(turn) for turn in range(connections)))
    return len(latencies), time.monotonic() - start, sorted(latencies)[int(len(latencies) * 0.99)] * 1000


def producer_alone(address: str, seconds: int) -> float:
    """Events/s of confluent-kafka's own producer with the same guarantees, a report for each message."""
    receipt = {"collector_id": "bench", "protocol": "cloudevents", "key_id": "0123abcd", "client": "0" * 32, "user_agent": "bench"}
    value = json.dumps(json.loads(one_event(1)) | {"received_at": event.now(), "receipt": receipt}, separators=(",", ":"))
    producer = Producer(kafka.producer_config(address))
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


def messages(address: str) -> int:
    """How many messages stand in events.raw."""
    consumer = Consumer(kafka.consumer_config(address, "bench"))
    topic = consumer.list_topics(event.RAW_TOPIC, timeout=10).topics[event.RAW_TOPIC]
    count = sum(consumer.get_watermark_offsets(TopicPartition(event.RAW_TOPIC, number), timeout=10)[1] for number in topic.partitions)
    consumer.close()
    return count


def main() -> None:
    """Measure, print a table, and write benchmarks/results/collector.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=10, help="of each measurement")
    arguments = parser.parse_args()
    results: dict[str, float] = {}
    table = Table("events a request", "connections", "events/s", "p99 ms", "CPU µs an event", "RSS MB", title="Collector over REST")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = RealKafka(folder)
        broker.start()
        try:
            producer_alone(broker.address, 1)
            alone = results["producer_events_per_s"] = round(producer_alone(broker.address, arguments.seconds))
            with collector(broker.address, folder) as server:
                server.wait()
                process = psutil.Process(server.process.pid)
                load(server, 100, 8, 2, folder)
                for batch, connections in ((1, 32), (1, 256), (100, 32), (100, 256)):
                    before, cpu = messages(broker.address), sum(process.cpu_times()[:2])
                    requests, took, p99 = load(server, batch, connections, arguments.seconds, folder)
                    cpu, rss = sum(process.cpu_times()[:2]) - cpu, process.memory_info().rss / 1e6
                    written = messages(broker.address) - before
                    if written < requests * batch:
                        sys.exit(f"{requests * batch} events were answered 200, and {written} are in Kafka")
                    rate, each = round(requests * batch / took), cpu * 1e6 / (requests * batch)
                    table.add_row(str(batch), str(connections), f"{rate:,}", f"{p99:.0f}", f"{each:.1f}", f"{rss:.0f}")
                    if rate > results.get(f"rest_batch{batch}_events_per_s", 0):
                        results[f"rest_batch{batch}_events_per_s"] = rate
                        results[f"rest_batch{batch}_p99_ms"] = round(p99, 1)
                        results[f"rest_batch{batch}_connections"] = connections
                        results[f"rest_batch{batch}_cpu_us_per_event"] = round(each, 1)
                server.stop()
        finally:
            broker.kill()
    results["rest_batch100_per_producer_ratio"] = round(results["rest_batch100_events_per_s"] / alone, 2)
    results["rest_batch1_per_producer_ratio"] = round(results["rest_batch1_events_per_s"] / alone, 2)
    Console().print(table, f"confluent-kafka's own producer, a report for each message: {alone:,.0f} events/s")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
