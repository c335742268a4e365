"""Cutting a stream of events into requests that a collector takes. Pure."""

from collections.abc import Iterable, Iterator, Sequence

MAX_EVENTS = 500  # the collector's own limits, unless its settings say otherwise
MAX_BYTES = 480_000


def batches(events: Iterable[bytes], max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> Iterator[list[bytes]]:
    """`events` in order, in lists whose request is within both limits. An event that is larger than `max_bytes` stands alone."""
    batch: list[bytes] = []
    size = 2
    for event in events:
        if batch and (len(batch) == max_events or size + len(event) + 1 > max_bytes):
            yield batch
            batch, size = [], 2
        batch.append(event)
        size += len(event) + 1
    if batch:
        yield batch


def body_of(events: Sequence[bytes]) -> bytes:
    """The body of a request: a JSON array of `events`, each the JSON text of a CloudEvent."""
    return b"[" + b",".join(events) + b"]"
