"""The enricher: whole validation of each event, scoring of those that want it, out to `events.enriched`."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from enricher.answer import Answer, Failure, enrichment_of
from headrace import event
from headrace.dead_letter import Invalid, Reason
from headrace.event import EnrichedEvent, RawEvent
from headrace.messages import MAX_VALUE_BYTES, Message, Rejected
from headrace.registry import Registry

_NOTHING = b"{}"
_CHUNK = 1000


class Scorer(Protocol):
    """`enricher.client.EnrichmentApi`, or what stands for it."""

    def score(self, events: Sequence[RawEvent]) -> Iterator[Answer | Failure]: ...


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
        self._needs = {name: of.enrichments for name, of in registry.types.items()}
        self._scorer = scorer
        self._publish = publish
        self._topic = topic

    def parse(self, message: Message) -> RawEvent:
        """A valid event, or Invalid."""
        return validated(self._registry, message.value())

    def deliver(self, items: Sequence[tuple[Message, RawEvent]]) -> Sequence[Rejected]:
        """Score those that want it, and publish all. Refused: what has become larger than Kafka takes.

        Raises Unavailable where an event does not get what it requires: the batch waits with it.
        """
        wanting = [raw for _, raw in items if self._needs[raw.type]]
        answers = self._scorer.score(wanting) if wanting else iter(())
        now, rejected = event.now(), []
        for start in range(0, len(items), _CHUNK):  # the first go out while the enrichment API is at those behind
            out = []
            for message, raw in items[start : start + _CHUNK]:
                needs = self._needs[raw.type]
                enrichment = enrichment_of(needs, next(answers)) if needs else _NOTHING
                value = event.encode(enriched(raw, enrichment, now))
                if len(value) > MAX_VALUE_BYTES:
                    detail = f"{len(value)} bytes with its enrichment; at most {MAX_VALUE_BYTES} go into {self._topic}"
                    rejected.append(Rejected(message, Reason.TOO_LARGE, detail))
                else:
                    out.append({"key": event.identity_key(raw.source, raw.id), "value": value})
            self._publish(self._topic, out)
        return rejected
