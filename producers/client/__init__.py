"""Sends events to a Headrace collector: CloudEvents in batches over HTTP, tried again until they are acknowledged."""

from producers.client.batches import MAX_BYTES, MAX_EVENTS, batches
from producers.client.collector import Collector, GaveUp, Rejected, Reply, RequestRefused

__all__ = ["MAX_BYTES", "MAX_EVENTS", "Collector", "GaveUp", "Rejected", "Reply", "RequestRefused", "batches"]
