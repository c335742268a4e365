"""What the real-time loader makes of Elasticsearch's answers, item by item."""

import threading
import time
from collections.abc import Sequence

import msgspec
import pytest

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason, Unavailable
from headrace.event import EnrichedEvent, Receipt
from headrace.messages import Message
from loaders.realtime.mapping import Document
from loaders.realtime.stage import Outcome, RealtimeStage
from tests.unit.test_batch import Fake

DONE = Outcome(201)
BUSY = Outcome(429, "es_rejected_execution_exception: queue full", "es_rejected_execution_exception")
BAD = Outcome(400, "document_parsing_exception: no object", "document_parsing_exception")


class Answers:
    """Answers each document as it was told to, and remembers what was asked."""

    def __init__(self, *of_each_call: dict[str, Outcome]) -> None:
        self._of_each_call = list(of_each_call)
        self.asked: list[list[str]] = []

    def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        ids = [msgspec.json.decode(document.source)["id"] for document in documents]
        self.asked.append(ids)
        answers = self._of_each_call.pop(0)
        return [answers.get(id, DONE) for id in ids]


def items(stage: RealtimeStage, *ids: str) -> list[tuple[Message, Document]]:
    of_event = EnrichedEvent(
        id="",
        source="s",
        type="t",
        time="2026-01-31T12:00:00Z",
        received_at="2026-01-31T12:00:00Z",
        enriched_at="2026-01-31T12:00:00Z",
        dataschema="t/1-0-0",
        data=msgspec.Raw(b"{}"),
        receipt=Receipt(collector_id="c", protocol="p"),
    )
    made: list[tuple[Message, Document]] = []
    for offset, id in enumerate(ids):
        of_event.id = id
        message = Fake(("events", 0), offset, event.encode(of_event))
        made.append((message, stage.parse(message)))
    return made


def test_what_waits_is_tried_again_alone_and_refusals_come_once() -> None:
    bulk = Answers({"b": BUSY, "c": BAD, "d": BUSY}, {"b": BUSY}, {"b": BAD})
    stage = RealtimeStage(bulk, "events")
    batch = items(stage, "a", "b", "c", "d")
    for waiting in (2, 1):
        with pytest.raises(Unavailable, match=f"{waiting} of 4 documents not taken now: es_rejected"):
            stage.deliver(batch)
    assert [(refusal.message.offset(), refusal.reason) for refusal in stage.deliver(batch)] == [
        (2, Reason.DOCUMENT_REJECTED),
        (1, Reason.DOCUMENT_REJECTED),
    ]
    assert bulk.asked == [["a", "b", "c", "d"], ["b", "d"], ["b"]]


def test_a_batch_of_which_a_part_was_taken_away_refuses_nothing_of_that_part() -> None:
    stage = RealtimeStage(Answers({"a": BAD, "b": BUSY}, {}, {}), "events")
    batch = items(stage, "a", "b")
    with pytest.raises(Unavailable):
        stage.deliver(batch)
    assert stage.deliver(batch[1:]) == []
    assert stage.deliver(items(stage, "a", "b")) == []  # the next batch knows nothing of this one


def test_all_sendings_of_an_event_go_in_their_order_through_one_lane() -> None:
    """Whatever is sent at the same time, the first sending stays."""
    asked: list[list[tuple[str, str]]] = []
    lock = threading.Lock()

    class Bulk:
        def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
            with lock:
                asked.append([(document.id, msgspec.json.decode(document.source)["data"]) for document in documents])
            return [DONE] * len(documents)

    stage = RealtimeStage(Bulk(), "events")
    batch = [(Fake(("events", 0), n), Document("i", f"id{n % 700}", b'{"data": "%d"}' % (n // 700))) for n in range(2100)]
    assert stage.deliver(batch) == []
    assert len(asked) == 4
    sendings = [[data for found, data in lane if found == id] for id in {f"id{n}" for n in range(700)} for lane in asked]
    assert sorted(filter(None, sendings)) == [["0", "1", "2"]] * 700


def test_a_lane_that_fails_fails_the_batch_once_the_others_are_over() -> None:
    class Bulk:
        over = 0

        def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
            if any(document.id == "id0" for document in documents):
                raise Unavailable("away")
            time.sleep(0.05)
            self.over += 1
            return [DONE] * len(documents)

    bulk = Bulk()
    batch = [(Fake(("events", 0), n), Document("i", f"id{n}", b"{}")) for n in range(2000)]
    with pytest.raises(Unavailable, match="away"):
        RealtimeStage(bulk, "events").deliver(batch)
    assert bulk.over == 3


@pytest.mark.parametrize(
    ("outcome", "meaning"),
    [
        (Outcome(201), "done"),
        (Outcome(409, "version_conflict_engine_exception", "version_conflict_engine_exception"), "done"),
        (BAD, "refused"),
        (Outcome(413, "", ""), "refused"),
        (Outcome(400, "", "invalid_index_name_exception"), "refused"),
        (BUSY, "waits"),
        (Outcome(503, "", "unavailable_shards_exception"), "waits"),
        (Outcome(500, "", ""), "waits"),
        (Outcome(403, "", "cluster_block_exception"), "waits"),
        (Outcome(401, "", "security_exception"), "waits"),
        (Outcome(404, "", "index_not_found_exception"), "waits"),
        (Outcome(400, "", "index_closed_exception"), "waits"),
        (Outcome(400, "this action would add [2] shards", "validation_exception"), "waits"),
    ],
)
def test_only_what_is_wrong_with_the_document_refuses_it(outcome: Outcome, meaning: str) -> None:
    stage = RealtimeStage(Answers({"a": outcome}), "events")
    try:
        found = "refused" if stage.deliver(items(stage, "a")) else "done"
    except Unavailable:
        found = "waits"
    assert found == meaning


def test_a_dead_letter_that_is_refused_is_indexed_bare_and_waits_if_that_cannot_be_now() -> None:
    letter = DeadLetter(
        dead_letter_id="d", service="s", reason=Reason.POISON, detail="", rejected_at="2026-01-31T00:00:00.000Z", payload="{", id="x"
    )

    class Bulk:
        def __init__(self) -> None:
            self.answers = [BAD, BUSY, BAD, DONE]
            self.sources: list[dict[str, str]] = []

        def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
            self.sources += [msgspec.json.decode(document.source) for document in documents]
            return [self.answers.pop(0)]

    bulk = Bulk()
    stage = RealtimeStage(bulk, "events")
    message = Fake(("dead-letter.x", 0), 0, dead_letter.encode(letter))
    batch: list[tuple[Message, Document]] = [(message, stage.parse(message))]
    with pytest.raises(Unavailable, match="queue full"):
        stage.deliver(batch)
    assert stage.deliver(batch) == []
    assert ["payload" in source for source in bulk.sources] == [True, False, True, False]
