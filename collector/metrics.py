"""Every metric of the collector. Closed: a new one is added here, with its meaning."""

import os
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

ACCEPTED = Counter(
    "headrace_collector_events_accepted_total", "Events that are durable: in events.raw, or in the spool on the way there", ["protocol"]
)
REJECTED = Counter("headrace_collector_events_rejected_total", "Events that went to dead-letter.collector", ["protocol", "reason"])
REQUESTS = Counter("headrace_collector_requests_total", "Requests answered", ["protocol", "code"])
LATENCY = Histogram(
    "headrace_collector_request_seconds",
    "Time from a request's first byte to its answer",
    ["protocol"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)
# Looking a label up costs more than counting.
accepted = cache(ACCEPTED.labels)
rejected = cache(REJECTED.labels)
requests = cache(REQUESTS.labels)
latency = cache(LATENCY.labels)

IN_FLIGHT_BYTES = Gauge(
    "headrace_collector_in_flight_bytes", "Bytes given to Kafka's client and not yet acknowledged", multiprocess_mode="livesum"
)
KAFKA_UP = Gauge("headrace_collector_kafka_up", "1 while Kafka can take events", multiprocess_mode="livemin")
KAFKA_ERRORS = Counter("headrace_collector_kafka_errors_total", "Errors that Kafka's client reported", ["error"])
SPOOL_BYTES = Gauge(
    "headrace_collector_spool_bytes",
    "Bytes of the spool's files: events that Kafka does not have yet, or only just",
    multiprocess_mode="livesum",
)
OVER_QUOTA = Counter("headrace_collector_over_quota_total", "Requests refused because their write key had sent enough", ["key_id"])
KEYS_READABLE = Gauge("headrace_collector_keys_readable", "1 where the file of write keys could be read", multiprocess_mode="min")


def exposition() -> bytes:
    """All of them as Prometheus reads them; of all workers, where there are several."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
