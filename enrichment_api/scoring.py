"""A batch of events to a batch of enrichments: one look-up, one call of each variant of the model."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec
import numpy as np
import orjson

from enrichment_api.customers import States
from enrichment_api.serving import Serving
from headrace.features import MODEL, Basis, features

MAX_EVENTS = 1000
EVENT_TYPE = "purchase"  # the type that there is a model for

UNAVAILABLE = "unavailable"  # the online store did not answer

_OFFSET = re.compile(r".*(?:[Zz]|[+-]\d\d:\d\d)", re.DOTALL)


class Asked(msgspec.Struct, gc=False):
    """An event to be scored, as far as it matters here."""

    id: str
    source: str
    type: str
    time: str
    data: msgspec.Raw
    subject: str | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request."""

    events: Annotated[list[Asked], msgspec.Meta(max_length=MAX_EVENTS)]


class Enrichment(msgspec.Struct, gc=False):
    """A score with what it came from. `features` is "customer" where the customer's state counted, "new" where there is none, and
    "ahead" where the state in the lake is not older than the event and "unavailable" where the online store did not answer (both are scored
    as a new customer's). `variant` is what the version is in
    its release: "champion" where there is no other."""

    model: str
    version: str
    score: float
    features: str
    variant: str


class _Purchase(msgspec.Struct, gc=False):
    """What is read of `data`: by orjson, as the validator of the enricher reads it, so that both see the same (a key given twice, say)."""

    quantity: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    amount_usd: Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]


_1970, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_BASES = {basis: basis.name.lower() for basis in Basis}


def score(events: Sequence[Asked], customers: States, serving: Serving) -> list[dict[str, Enrichment]]:
    """One object of enrichments for each event, in order.

    It is empty for a type without a model, and for a purchase that cannot be scored: one whose time is not RFC 3339, or whose data
    lacks a number of items or a sum.
    """
    answers: list[dict[str, Enrichment]] = [{} for _ in events]
    places, keys, times, purchases = [], [], [], []
    asked = []
    for place, event in enumerate(events):
        if event.type != EVENT_TYPE:
            continue
        try:
            purchase = msgspec.convert(orjson.loads(bytes(event.data)), _Purchase)
            time = microseconds(event.time)
        except (msgspec.ValidationError, ValueError):
            continue
        places.append(place)
        asked.append(event)
        keys.append((event.source, event.subject or ""))
        times.append(time)
        purchases.append((purchase.quantity, purchase.amount_usd))
    if not places:
        return answers
    quantity, amount_usd = np.array(purchases).T
    rows, basis = features(np.array(times, np.int64).view("M8[us]"), quantity, amount_usd, customers.states(keys))
    names = _BASES if customers.available else dict.fromkeys(Basis, UNAVAILABLE)
    for place, scored, known in zip(places, serving.score(rows, asked), basis.tolist(), strict=True):
        if scored is not None:
            value, by = scored
            answers[place] = {MODEL: Enrichment(MODEL, by.version, value, names[known], by.name)}
    return answers


def microseconds(text: str) -> int:
    """The moment that RFC 3339 `text` says, since 1970 in UTC. Raises ValueError where it says none."""
    if not _OFFSET.fullmatch(text):
        raise ValueError(f"{text[:40]!r} has no offset from UTC")
    return (datetime.fromisoformat(text) - _1970) // _MICROSECOND
