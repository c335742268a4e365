"""The enricher's pure parts: validation, the request, the answer."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.answer import Answer, Enrichment, Failure, Why, answers_in, enrichment_of, request_of
from enricher.stage import EnricherStage, validated
from headrace import event, metrics
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.event import RawEvent, Receipt
from headrace.messages import MAX_VALUE_BYTES
from headrace.registry import Need, Registry
from tests.unit.test_batch import Fake

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
SCORE = {"model": "repurchase", "version": "1", "score": 0.5}


def raw(**changed: Any) -> RawEvent:
    values: dict[str, Any] = {
        "id": "1",
        "source": "s",
        "type": "button_click",
        "time": "2026-01-31T12:00:00.000Z",
        "received_at": "2026-01-31T12:00:01.000Z",
        "dataschema": "button_click/1-0-0",
        "data": msgspec.Raw(b'{"button_id": "b"}'),
        "receipt": Receipt(collector_id="c", protocol="grpc"),
    }
    return RawEvent(**(values | changed))


def purchase(id: str) -> RawEvent:
    data = msgspec.Raw(b'{"quantity": 1, "amount_usd": 2.50}')
    return raw(id=id, type="purchase", dataschema="purchase/1-0-0", subject="u", data=data)


def refusal(value: bytes | None) -> Reason:
    with pytest.raises(Invalid) as refused:
        validated(REGISTRY, value)
    return refused.value.reason


def test_a_valid_event_comes_out_as_it_went_in() -> None:
    assert validated(REGISTRY, event.encode(raw())) == raw()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"type": "nothing"}, Reason.UNKNOWN_TYPE),
        ({"type": "purchase"}, Reason.MISSING_ATTRIBUTE),
        ({"type": "purchase", "subject": ""}, Reason.MISSING_ATTRIBUTE),
        ({"dataschema": "button_click/2-0-0"}, Reason.UNKNOWN_SCHEMA),
        ({"dataschema": "purchase/1-0-0"}, Reason.UNKNOWN_SCHEMA),
        ({"time": "2026-01-31"}, Reason.INVALID_ATTRIBUTE),
        ({"time": "2026-01-31T12:00:00+01:00"}, Reason.INVALID_ATTRIBUTE),
        ({"time": "2026-02-31T12:00:00Z"}, Reason.INVALID_ATTRIBUTE),
        ({"received_at": "2026-01-31T12:00:00.123456789Z"}, Reason.INVALID_ATTRIBUTE),
        ({"data": msgspec.Raw(b"{}")}, Reason.SCHEMA_INVALID),
        ({"data": msgspec.Raw(b'"text"')}, Reason.SCHEMA_INVALID),
    ],
)
def test_each_fault_has_its_reason(changed: dict[str, Any], reason: Reason) -> None:
    assert refusal(event.encode(raw(**changed))) is reason


@pytest.mark.parametrize("value", [None, b"", b"{", b"\xff"])
def test_what_is_not_json_is_unparseable(value: bytes | None) -> None:
    assert refusal(value) is Reason.UNPARSEABLE


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_json_that_is_no_event_is_malformed(value: object) -> None:
    assert refusal(json.dumps(value).encode("utf-8")) is Reason.MALFORMED


def answer(*enrichments: object) -> bytes:
    return json.dumps({"enrichments": enrichments}).encode()


def test_the_request_carries_the_data_as_it_came() -> None:
    data = b'{"quantity": 1, "amount_usd": 2.50}'
    assert data in request_of([purchase("p")])
    assert json.loads(request_of([purchase("p")])) == {
        "events": [
            {"id": "p", "source": "s", "type": "purchase", "time": "2026-01-31T12:00:00.000Z", "subject": "u", "data": json.loads(data)}
        ]
    }


WANTED: dict[str, Need] = {"repurchase": "optional"}


def test_of_an_answer_goes_on_what_was_asked_for_and_what_the_stores_know() -> None:
    answers = answers_in(answer({"repurchase": {**SCORE, "features": "new", "variant": "b", "more": [1]}, "other": SCORE}, {}), 2)
    assert not isinstance(answers, Failure)
    assert json.loads(enrichment_of(WANTED, answers[0])) == {"repurchase": {**SCORE, "features": "new", "variant": "b"}}


@pytest.mark.parametrize("without", [{}, {"repurchase": None}])
def test_an_event_that_the_api_has_nothing_for_goes_on_and_is_counted(without: dict[str, None]) -> None:
    counter = metrics.NOT_ENRICHED.labels("repurchase")._value
    before = counter.get()
    answers = answers_in(answer(without, {"repurchase": SCORE}), 2)
    assert not isinstance(answers, Failure)
    assert [json.loads(enrichment_of(WANTED, one)) for one in answers] == [{"repurchase": None}, {"repurchase": SCORE}]
    assert counter.get() == before + 1


def test_an_event_whose_enrichment_failed_is_marked_with_the_reason_and_counted() -> None:
    counter = metrics.ENRICHMENT_SKIPPED.labels("repurchase", "late")._value
    before = counter.get()
    late = Failure(Why.LATE, "no whole answer")
    assert json.loads(enrichment_of(WANTED, late)) == {"repurchase": None, "enrichment_skipped": {"repurchase": "late"}}
    assert json.loads(enrichment_of({**WANTED, "b": "optional"}, late)) == {
        "repurchase": None,
        "b": None,
        "enrichment_skipped": {"repurchase": "late", "b": "late"},
    }
    with pytest.raises(Unavailable, match="enrichment API: no whole answer"):
        enrichment_of({**WANTED, "b": "required"}, late)
    assert counter.get() == before + 2


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"enrichments": 5}',
        b'{"enrichments":' + b"[" * 100_000,
        answer(),
        answer({}, {}),
        answer({"repurchase": [SCORE]}),
        answer({"repurchase": {**SCORE, "score": "0.5"}}),
        answer({"repurchase": {**SCORE, "score": True}}),
        answer({"repurchase": {**SCORE, "score": None}}),
        answer({"repurchase": {**SCORE, "version": 1}}),
        answer({"repurchase": {**SCORE, "version": "v" * 201}}),
        answer({"repurchase": {"score": 0.5}}),
        answer({"repurchase": SCORE}).replace(b"0.5", b"NaN"),
        answer({"repurchase": SCORE}).replace(b"0.5", b"-Infinity"),
        answer({"repurchase": SCORE}).replace(b"0.5", b"1e999"),
        answer({"repurchase": SCORE}).replace(b'"1"', b'"\xff"'),
        answer({"repurchase": SCORE}).replace(b'"1"', b'"\\ud800"'),
        answer({"repurchase": {**SCORE, "more": 0}}).replace(b": 0}", b": " + b"[" * 100_000),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_a_failure(body: bytes) -> None:
    failure = answers_in(body, 1)
    assert isinstance(failure, Failure)
    assert failure.why is Why.BAD_ANSWER


@given(st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)))
def test_whatever_is_answered_nothing_is_raised(body: object) -> None:
    found = answers_in(body if isinstance(body, bytes) else json.dumps(body).encode(), 1)
    assert isinstance(found, Failure)


class Recorder:
    """Stands for the API and for the transaction; scores each event by its id."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.published: list[dict[str, Any]] = []

    def score(self, events: Sequence[RawEvent]) -> Iterator[Answer | Failure]:
        self.asked.append([one.id for one in events])
        return iter([self.answer_of(one.id) for one in events])

    def answer_of(self, id: str) -> Answer | Failure:
        return {"repurchase": Enrichment(id, "1", 0.5)}

    def publish(self, topic: str, messages: list[dict[str, Any]]) -> None:
        assert topic == "out"
        self.published += messages


def test_those_that_want_it_are_asked_about_and_each_event_gets_its_own_score() -> None:
    there = Recorder()
    stage = EnricherStage(REGISTRY, there, there.publish, "out")
    events = [raw(id="a"), purchase("b"), raw(id="c"), purchase("d")]
    items = [(message, stage.parse(message)) for n, one in enumerate(events) for message in [Fake(("in", 0), n, event.encode(one))]]
    assert stage.deliver(items) == []
    assert there.asked == [["b", "d"]]
    out = [event.decode_enriched(message["value"]) for message in there.published]
    assert [(one.id, bytes(one.enrichment)) for one in out] == [
        ("a", b"{}"),
        ("b", b'{"repurchase":{"model":"b","version":"1","score":0.5}}'),
        ("c", b"{}"),
        ("d", b'{"repurchase":{"model":"d","version":"1","score":0.5}}'),
    ]
    assert [message["key"] for message in there.published] == [event.identity_key("s", one.id) for one in events]
    assert [bytes(one.data) for one in out] == [bytes(one.data) for one in events]


def test_an_event_that_grows_beyond_what_kafka_takes_is_refused_alone() -> None:
    there = Recorder()
    stage = EnricherStage(REGISTRY, there, there.publish, "out")
    large = raw(id="large", data=msgspec.Raw(b'{"button_id": "b", "more": "%b"}' % (b"x" * MAX_VALUE_BYTES)))
    refused = stage.deliver([(Fake(("in", 0), 0), large), (Fake(("in", 0), 1), raw(id="small"))])
    assert [(one.message.offset(), one.reason) for one in refused] == [(0, Reason.TOO_LARGE)]
    assert [event.decode_enriched(message["value"]).id for message in there.published] == ["small"]
    assert there.asked == []


class Failing(Recorder):
    def answer_of(self, id: str) -> Answer | Failure:
        return Failure(Why.STATUS, "status 503: why") if id == "bad" else super().answer_of(id)


def _registry(need: Need) -> Registry:
    purchase = msgspec.structs.replace(REGISTRY.types["purchase"], enrich={"repurchase": need})
    return Registry({**REGISTRY.types, "purchase": purchase}, REGISTRY.schemas)


def test_an_optional_enrichment_that_failed_costs_the_event_nothing_else() -> None:
    there = Failing()
    stage = EnricherStage(_registry("optional"), there, there.publish, "out")
    assert stage.deliver([(Fake(("in", 0), n), purchase(id)) for n, id in enumerate(("good", "bad"))]) == []
    good, bad = (json.loads(bytes(event.decode_enriched(message["value"]).enrichment)) for message in there.published)
    assert good == {"repurchase": {"model": "good", "version": "1", "score": 0.5}}
    assert bad == {"repurchase": None, "enrichment_skipped": {"repurchase": "status"}}


def test_a_required_enrichment_that_failed_is_waited_for_with_the_whole_batch() -> None:
    there = Failing()
    stage = EnricherStage(_registry("required"), there, there.publish, "out")
    with pytest.raises(Unavailable, match="enrichment API: status 503: why"):
        stage.deliver([(Fake(("in", 0), n), purchase(id)) for n, id in enumerate(("good", "bad"))])
    assert there.published == []
    assert stage.deliver([(Fake(("in", 0), 0), purchase("good"))]) == []
    assert len(there.published) == 1
