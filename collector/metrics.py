"""Every metric of the collector. Closed: a new one is added here, with its meaning."""

import os
from bisect import bisect_left
from collections import Counter as Count
from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

ACCEPTED = Counter(
    "headrace_collector_events_accepted_total", "Events that are durable: in events.raw, or in the spool on the way there", ["protocol"]
)
REJECTED = Counter("headrace_collector_events_rejected_total", "Events that went to dead-letter.collector", ["protocol", "reason"])
REQUESTS = Counter("headrace_collector_requests_total", "Requests answered", ["protocol", "code"])
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)  # seconds
LATENCY = Histogram("headrace_collector_request_seconds", "Time from a request's first byte to its answer", ["protocol"], buckets=_BOUNDS)
rejected = cache(REJECTED.labels)  # looking a label up costs more than counting

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

# What is counted for every request is counted here, and poured into the metrics every second and before they are read: Prometheus's own
# counting would take 2 µs of each request. One of several workers pours at once: another one may be asked, and what it counted outlives it.
_SHARED = "PROMETHEUS_MULTIPROC_DIR" in os.environ
_accepted: Count[str] = Count()
_requests: Count[tuple[str, str | int]] = Count()
_latencies: dict[str, list[int]] = {}
_seconds: Count[str] = Count()


def accepted(protocol: str, events: int) -> None:
    """Events are durable."""
    _accepted[protocol] += events


def answered(protocol: str, code: str | int, seconds: float | None = None) -> None:
    """A request was answered, after so long."""
    _requests[protocol, code] += 1
    if seconds is not None:
        if protocol not in _latencies:
            _latencies[protocol] = [0] * (len(_BOUNDS) + 1)
        _latencies[protocol][bisect_left(_BOUNDS, seconds)] += 1
        _seconds[protocol] += seconds  # type: ignore[assignment] # typeshed knows whole numbers only
    if _SHARED:
        pour()


def pour() -> None:
    """Add what was counted to the metrics."""
    for protocol, events in _accepted.items():
        ACCEPTED.labels(protocol).inc(events)
    for (protocol, code), number in _requests.items():
        REQUESTS.labels(protocol, code).inc(number)
    for protocol, numbers in _latencies.items():
        histogram = LATENCY.labels(protocol)
        for bucket, number in zip(histogram._buckets, numbers, strict=True):
            bucket.inc(number)
        histogram._sum.inc(_seconds[protocol])
    for one in (_accepted, _requests, _latencies, _seconds):
        one.clear()


def exposition() -> bytes:
    """All of them as Prometheus reads them; of all workers, where there are several."""
    pour()
    if not _SHARED:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
