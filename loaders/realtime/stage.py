"""The real-time loader: enriched events and all dead letters into Elasticsearch.

`_id` comes from the identity of the event and the operation is `create`, so the first sending stays and a repetition (409) is as good as
done. Kafka's key keeps all sendings in one partition, so "first" is the same everywhere; since an index is of one day, a repetition that
is received on another day is a second document, which silver (where duplicates and conflicts are decided) has not.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import chain
from typing import Protocol

import msgspec
import structlog

from headrace import event
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.messages import Message, Partition, Rejected, letter_in
from loaders.realtime.mapping import UNMARKED, Document, Marks, bare_dead_letter_document, dead_letter_document, event_document

SERVICE = "realtime-loader"
Item = tuple[Message, Document]
_BULK_BYTES = 8_000_000  # Elasticsearch refuses a request of more than 100 MB, and takes 5 to 15 best
_LANES = 4  # bulk requests at a time: with one, we and Elasticsearch would wait for each other
_LANE_DOCUMENTS = 250  # fewer are not worth a request
_DONE = frozenset({200, 201, 409})
_REFUSED = frozenset({400, 413})
# Refusals that are no fault of the document: somebody closed the index, or the cluster takes no more shards.
_NO_FAULT = frozenset({"index_closed_exception", "validation_exception"})


class Outcome(msgspec.Struct, frozen=True):
    """What Elasticsearch says of one item of a bulk request. `kind` is its name for the error."""

    status: int
    error: str = ""
    kind: str = ""

    @property
    def is_done(self) -> bool:
        """The document is there, from now or from before."""
        return self.status in _DONE

    @property
    def is_refusal(self) -> bool:
        """The document will never be taken. All else (too busy, read-only, no rights, no such shard) is a matter of waiting."""
        return self.status in _REFUSED and self.kind not in _NO_FAULT


class Bulk(Protocol):
    """`loaders.realtime.search.Search`, or what stands for it."""

    def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        """One outcome for each document, in order. Raises Unavailable where the request as a whole got no answer."""


class RealtimeStage:
    """Messages of `events_topic` are enriched events, all others dead letters. What `marks` says of events identifies a person."""

    def __init__(self, bulk: Bulk, events_topic: str, marks: Marks = UNMARKED) -> None:
        self._bulk = bulk
        self._events_topic = events_topic
        self._marks = marks
        self._pool = ThreadPoolExecutor(_LANES, "bulk")
        self._log = structlog.get_logger()
        # What is settled of a batch of which other items wait: where the message is from, and its refusal if it has one.
        self._settled: dict[tuple[Partition, int], Rejected | None] = {}

    def parse(self, message: Message) -> Document:
        """The document of a message. A dead letter has one in any case: refusing it would only make another dead letter."""
        if message.topic() != self._events_topic:
            return dead_letter_document(letter_in(SERVICE, message))
        try:
            return event_document(event.decode_enriched(message.value() or b""), self._marks)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(Reason.UNPARSEABLE, f"not an event as the enricher writes it: {error}") from None

    def deliver(self, items: Sequence[Item]) -> Sequence[Rejected]:
        """Index all. Items that Elasticsearch cannot take now are tried again with the next call, alone: the others are done by then."""
        rejected: list[Rejected] = []
        waiting: dict[tuple[Partition, int], Outcome] = {}
        still_open = [item for item in items if _place(item[0]) not in self._settled] if self._settled else items
        for (message, document), outcome in self._outcomes(still_open):
            if outcome.is_done:
                continue
            if not outcome.is_refusal:
                waiting[_place(message)] = outcome
            elif message.topic() == self._events_topic:
                detail = f"Elasticsearch refused the document for {document.index}: {outcome.error}"
                rejected.append(Rejected(message, Reason.DOCUMENT_REJECTED, detail))
            else:
                self._index_bare(message, outcome)
        if waiting:
            self._settled |= {_place(message): None for message, _ in still_open if _place(message) not in waiting}
            self._settled |= {_place(refusal.message): refusal for refusal in rejected}
            why = next(iter(waiting.values())).error
            raise Unavailable(f"Elasticsearch: {len(waiting)} of {len(items)} documents not taken now: {why}")
        earlier, self._settled = self._settled, {}
        return [*filter(None, (earlier.get(_place(message)) for message, _ in items)), *rejected] if earlier else rejected

    def _outcomes(self, items: Sequence[Item]) -> Iterator[tuple[Item, Outcome]]:
        """What Elasticsearch says of each, once all requests are over."""
        lanes = [self._pool.submit(self._lane, lane) for lane in _lanes(items)]
        wait(lanes)
        return chain.from_iterable([lane.result() for lane in lanes])

    def _lane(self, items: Sequence[Item]) -> list[tuple[Item, Outcome]]:
        answered: list[tuple[Item, Outcome]] = []
        for chunk in _chunks(items):
            answered += zip(chunk, self._bulk.create([document for _, document in chunk]), strict=True)
        return answered

    def _index_bare(self, message: Message, refused: Outcome) -> None:
        outcome = self._bulk.create([bare_dead_letter_document(letter_in(SERVICE, message), refused.error)])[0]
        if not (outcome.is_done or outcome.is_refusal):
            raise Unavailable(f"Elasticsearch: {outcome.error}")
        if not outcome.is_done:
            place = f"{message.topic()}/{message.partition()}/{message.offset()}"
            self._log.error("a dead letter cannot be searched for; the lake has it", message=place, why=outcome.error)


def _place(message: Message) -> tuple[Partition, int]:
    return (message.topic(), message.partition()), message.offset()


def _lanes(items: Sequence[Item]) -> Iterable[Sequence[Item]]:
    """Parts that may be indexed at the same time: all sendings of an event are in one of them, in their order, so that the first stays."""
    count = min(_LANES, 1 + len(items) // _LANE_DOCUMENTS)
    lanes: list[list[Item]] = [[] for _ in range(count)]
    for item in items:
        lanes[hash(item[1].id) % count].append(item)
    return filter(None, lanes)


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
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
