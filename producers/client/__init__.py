"""Sends events to a Headrace collector: see README.md in this folder."""

from producers.client.aio import AsyncClient
from producers.client.batches import MAX_BYTES, MAX_EVENTS, batches
from producers.client.client import Client
from producers.client.collector import Collector
from producers.client.core import Stats
from producers.client.events import Event, InvalidEvent, TypedEvent
from producers.client.policy import GaveUp, Rejected, Reply, RequestRefused
from producers.client.spool import QueueFull, SpoolTaken

__all__ = [
    "MAX_BYTES",
    "MAX_EVENTS",
    "AsyncClient",
    "Client",
    "Collector",
    "Event",
    "GaveUp",
    "InvalidEvent",
    "QueueFull",
    "Rejected",
    "Reply",
    "RequestRefused",
    "SpoolTaken",
    "Stats",
    "TypedEvent",
    "batches",
]
