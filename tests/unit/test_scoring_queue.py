"""A batch of scoring requests: each answer to the topic that asked, in one publish a topic; what cannot be answered is refused alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichment_api.customers import Customers
from enrichment_api.model import Model
from enrichment_api.queue.stage import QueueStage
from enrichment_api.serving import Serving
from headrace.dead_letter import Invalid, Reason
from tests import models

TOPICS = {"scoring.replies", "scoring.replies.a", "events.raw"}


@dataclass(frozen=True)
class Kept:
    """A message of Kafka."""

    content: bytes

    def topic(self) -> str:
        return "scoring.requests"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self.content


class Published(dict[str, list[dict[str, Any]]]):
    def __call__(self, topic: str, messages: list[dict[str, Any]]) -> None:
        assert topic not in self  # a topic once
        self[topic] = messages


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Serving:
    """A model whose score is the quantity."""
    return Serving.alone(Model.load(models.release(tmp_path_factory.mktemp("model"), "v1", models.first_feature())))


def _stage(serving: Serving, published: Published) -> QueueStage:
    return QueueStage(lambda: serving, Customers.none, published, TOPICS.__contains__)


def _message(name: str, quantity: float, reply_to: str | None = None) -> Kept:
    data = {"quantity": quantity, "amount_usd": 1}
    event = {"id": name, "source": "shop", "type": "purchase", "time": "2026-11-22T00:00:00Z", "subject": "c", "data": data}
    said = {"correlation_id": name, "event": event} | ({"reply_to": reply_to} if reply_to else {})
    return Kept(json.dumps(said).encode())


@given(st.lists(st.tuples(st.integers(0, 64), st.sampled_from([None, "scoring.replies.a", "scoring.replies.away"])), max_size=20))
def test_each_answer_goes_where_it_was_asked_for(serving: Serving, asked: list[tuple[int, str | None]]) -> None:
    published = Published()
    stage = _stage(serving, published)
    messages = [_message(str(place), quantity / 64, reply_to) for place, (quantity, reply_to) in enumerate(asked)]
    rejected = stage.deliver([(message, stage.parse(message)) for message in messages])
    expected: dict[str, list[tuple[str, float]]] = {}
    for place, (quantity, reply_to) in enumerate(asked):
        if reply_to != "scoring.replies.away":
            expected.setdefault(reply_to or "scoring.replies", []).append((str(place), quantity / 64))
    found = {topic: [json.loads(message["value"]) for message in sent] for topic, sent in published.items()}
    assert {
        topic: [(reply["correlation_id"], reply["enrichment"]["repurchase"]["score"]) for reply in replies]
        for topic, replies in found.items()
    } == expected
    assert all(message["key"].decode() == json.loads(message["value"])["correlation_id"] for sent in published.values() for message in sent)
    assert [refusal.message for refusal in rejected] == [
        m for m, (_, to) in zip(messages, asked, strict=True) if to == "scoring.replies.away"
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.UNPARSEABLE),
        (b"{", Reason.UNPARSEABLE),
        (b"\xff", Reason.UNPARSEABLE),
        (b"[]", Reason.MALFORMED),
        (b'{"correlation_id":"x"}', Reason.MALFORMED),
        (b'{"correlation_id":"","event":{"id":"","source":"","type":"","time":"","data":0}}', Reason.MALFORMED),
        (_message("x", 1, "events.raw").content, Reason.INVALID_ATTRIBUTE),
        (_message("x", 1, "scoring.repliesfoo").content, Reason.INVALID_ATTRIBUTE),
    ],
)
def test_what_is_no_request_is_refused(serving: Serving, value: bytes, reason: Reason) -> None:
    with pytest.raises(Invalid) as found:
        _stage(serving, Published()).parse(Kept(value))
    assert found.value.reason == reason


def test_an_event_without_a_score_is_answered_too(serving: Serving, tmp_path: Path) -> None:
    published = Published()
    stage = _stage(serving, published)
    text = _message("x", 1).content.replace(b'"purchase"', b'"login"')
    assert stage.deliver([(Kept(text), stage.parse(Kept(text)))]) == []
    assert json.loads(published["scoring.replies"][0]["value"]) == {"correlation_id": "x", "enrichment": {}}
