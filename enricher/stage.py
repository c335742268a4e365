"""The enricher: whole validation of each event, one scoring request for each batch, out to `events.enriched`."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from headrace import event
from headrace.dead_letter import Invalid, Reason
from headrace.event import EnrichedEvent, RawEvent
from headrace.messages import MAX_VALUE_BYTES, Message, Rejected
from headrace.registry import Registry

_NOTHING = b"{}"


class Scorer(Protocol):
    """`enricher.client.EnrichmentApi`, or what stands for it."""

    def score(self, events: Sequence[RawEvent], wanted: Sequence[Sequence[str]]) -> list[bytes]: ...


Publish = Callable[[str, list[dict[str, Any]]], None]


def validated(registry: Registry, value: bytes | None) -> RawEvent:
    """The event of a Kafka value, checked against the tracking plan and its schema. Raises Invalid."""
    try:
        raw = event.decode_raw(value or b"")
    except msgspec.ValidationError as error:
        raise Invalid(Reason.MALFORMED, f"not an event as the collector writes it: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(Reason.UNPARSEABLE, f"not JSON: {error}") from None
    plan = registry.types.get(raw.type)
    if plan is None:
        raise Invalid(Reason.UNKNOWN_TYPE, f"type {raw.type[:100]!r} is not in the tracking plan")
    if plan.subject == "required" and not raw.subject:
        raise Invalid(Reason.MISSING_ATTRIBUTE, f"subject: a {raw.type} event needs one (whom or what it is about)")
    for name, said in (("time", raw.time), ("received_at", raw.received_at)):
        if not event.is_utc(said):
            raise Invalid(Reason.INVALID_ATTRIBUTE, f"{name}: {said[:50]!r} is not like 2026-01-31T12:00:00.000Z")
    registry.validate(registry.schema_ref(raw.type, raw.dataschema), bytes(raw.data))
    return raw


def enriched(raw: RawEvent, enrichment: bytes, enriched_at: str) -> EnrichedEvent:
    """`raw` with what was found out about it. Its data goes through byte for byte."""
    return EnrichedEvent(
        id=raw.id,
        source=raw.source,
        type=raw.type,
        time=raw.time,
        received_at=raw.received_at,
        dataschema=raw.dataschema,
        data=raw.data,
        receipt=raw.receipt,
        subject=raw.subject,
        enriched_at=enriched_at,
        enrichment=msgspec.Raw(enrichment),
    )


class EnricherStage:
    """`publish` writes into the runner's open transaction; `topic` is where enriched events go."""

    def __init__(self, registry: Registry, scorer: Scorer, publish: Publish, topic: str) -> None:
        self._registry = registry
        self._scorer = scorer
        self._publish = publish
        self._topic = topic

    def parse(self, message: Message) -> RawEvent:
        """A valid event, or Invalid."""
        return validated(self._registry, message.value())

    def deliver(self, items: Sequence[tuple[Message, RawEvent]]) -> Sequence[Rejected]:
        """Score those that ask for it, in one request, and publish all. Refused: what has become larger than Kafka takes."""
        found = self._enrichments([raw for _, raw in items])
        now, out, rejected = event.now(), [], []
        for (message, raw), enrichment in zip(items, found, strict=True):
            value = event.encode(enriched(raw, enrichment, now))
            if len(value) > MAX_VALUE_BYTES:
                detail = f"{len(value)} bytes with its enrichment; at most {MAX_VALUE_BYTES} go into {self._topic}"
                rejected.append(Rejected(message, Reason.TOO_LARGE, detail))
            else:
                out.append({"key": event.identity_key(raw.source, raw.id), "value": value})
        self._publish(self._topic, out)
        return rejected

    def _enrichments(self, events: Sequence[RawEvent]) -> list[bytes]:
        wanted = [self._registry.types[raw.type].enrich for raw in events]
        asking = [place for place, names in enumerate(wanted) if names]
        found = [_NOTHING] * len(events)
        if asking:
            scores = self._scorer.score([events[place] for place in asking], [wanted[place] for place in asking])
            for place, score in zip(asking, scores, strict=True):
                found[place] = score
        return found
