"""The real-time loader: enriched events and all dead letters into Elasticsearch.

`_id` comes from the identity of the event and the operation is `create`, so the first sending stays and a repetition (409) is as good as
done. Kafka's key keeps all sendings in one partition, so "first" is the same everywhere; since an index is of one day, a repetition that
is received on another day is a second document, which silver (where duplicates and conflicts are decided) has not.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec
import structlog

from headrace import event
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.messages import Message, Rejected, letter_in
from loaders.realtime.mapping import Document, bare_dead_letter_document, dead_letter_document, event_document

SERVICE = "realtime-loader"
_BULK_BYTES = 8_000_000  # Elasticsearch refuses a request of more than 100 MB, and takes 5 to 15 best
_TRY_AGAIN = frozenset({429, 500, 502, 503, 504})
_DONE = frozenset({200, 201, 409})


class Outcome(msgspec.Struct, frozen=True):
    """What Elasticsearch says of one item of a bulk request."""

    status: int
    error: str = ""


class Bulk(Protocol):
    """`loaders.realtime.search.Search`, or what stands for it."""

    def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        """One outcome for each document, in order. Raises Unavailable where the request as a whole got no answer."""


class RealtimeStage:
    """Messages of `events_topic` are enriched events, all others dead letters."""

    def __init__(self, bulk: Bulk, events_topic: str) -> None:
        self._bulk = bulk
        self._events_topic = events_topic
        self._log = structlog.get_logger()

    def parse(self, message: Message) -> Document:
        """The document of a message. A dead letter has one in any case: refusing it would only make another dead letter."""
        if message.topic() != self._events_topic:
            return dead_letter_document(letter_in(SERVICE, message))
        try:
            return event_document(event.decode_enriched(message.value() or b""))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(Reason.UNPARSEABLE, f"not an event as the enricher writes it: {error}") from None

    def deliver(self, items: Sequence[tuple[Message, Document]]) -> Sequence[Rejected]:
        """Index all. Items that Elasticsearch cannot take now are tried again with the next call, and the others are done by then."""
        rejected: list[Rejected] = []
        waiting: list[Outcome] = []
        for chunk in _chunks(items):
            for (message, document), outcome in zip(chunk, self._bulk.create([document for _, document in chunk]), strict=True):
                if outcome.status in _DONE:
                    continue
                if outcome.status in _TRY_AGAIN:
                    waiting.append(outcome)
                elif message.topic() == self._events_topic:
                    detail = f"Elasticsearch refused the document for {document.index}: {outcome.error}"
                    rejected.append(Rejected(message, Reason.DOCUMENT_REJECTED, detail))
                else:
                    self._index_bare(message, outcome)
        if waiting:
            raise Unavailable(f"Elasticsearch: {len(waiting)} of {len(items)} documents not taken now: {waiting[0].error}")
        return rejected

    def _index_bare(self, message: Message, refused: Outcome) -> None:
        outcome = self._bulk.create([bare_dead_letter_document(letter_in(SERVICE, message), refused.error)])[0]
        if outcome.status in _TRY_AGAIN:
            raise Unavailable(f"Elasticsearch: {outcome.error}")
        if outcome.status not in _DONE:
            place = f"{message.topic()}/{message.partition()}/{message.offset()}"
            self._log.error("a dead letter cannot be searched for; the lake has it", message=place, why=outcome.error)


def _chunks(items: Sequence[tuple[Message, Document]]) -> Iterator[list[tuple[Message, Document]]]:
    chunk: list[tuple[Message, Document]] = []
    size = 0
    for item in items:
        length = len(item[1].source)
        if chunk and size + length > _BULK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += length
    if chunk:
        yield chunk
