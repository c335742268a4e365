"""The enricher's pure parts: validation, the request, the answer."""

import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enricher.client import EnrichmentApi, enrichments_in, request_of
from enricher.stage import EnricherStage, validated
from headrace import event, metrics
from headrace.dead_letter import Invalid, Reason, Unavailable
from headrace.event import RawEvent, Receipt
from headrace.messages import MAX_VALUE_BYTES
from headrace.registry import Registry
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


def test_the_answer_is_taken_as_it_is_without_what_was_not_asked_for() -> None:
    found = enrichments_in(answer({"repurchase": {**SCORE, "more": [1]}, "other": 1}, {}), [["repurchase"], []])
    assert [json.loads(one) for one in found] == [{"repurchase": {**SCORE, "more": [1]}}, {}]


@pytest.mark.parametrize("without", [{}, {"repurchase": None}])
def test_an_event_without_the_enrichment_goes_on_and_is_counted(without: dict[str, None]) -> None:
    counter = metrics.NOT_ENRICHED.labels("repurchase")._value
    before = counter.get()
    found = enrichments_in(answer(without, {"repurchase": SCORE}), [["repurchase"], ["repurchase"]])
    assert [json.loads(one) for one in found] == [{"repurchase": None}, {"repurchase": SCORE}]
    assert counter.get() == before + 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"enrichments": 5}',
        answer(),
        answer({}, {}),
        answer({"repurchase": {**SCORE, "score": "0.5"}}),
        answer({"repurchase": {"score": 0.5}}),
        answer({"repurchase": SCORE}).replace(b"0.5", b"NaN"),
        answer({"repurchase": SCORE}).replace(b"0.5", b"1e999"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_means_unavailable(body: bytes) -> None:
    with pytest.raises(Unavailable, match="enrichment API"):
        enrichments_in(body, [["repurchase"]])


@pytest.mark.parametrize("status", [301, 400, 404, 422, 429, 500, 503])
def test_every_other_status_means_unavailable(status: int) -> None:
    api = EnrichmentApi(httpx.Client(base_url="http://api", transport=httpx.MockTransport(lambda _: httpx.Response(status, text="why"))))
    with pytest.raises(Unavailable, match=f"status {status}: why"):
        api.score([purchase("p")], [["repurchase"]])


class Recorder:
    """Stands for the API and for the transaction; scores each event by its id."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.published: list[dict[str, Any]] = []

    def score(self, events: Any, wanted: Any) -> list[bytes]:
        self.asked.append([one.id for one in events])
        assert [list(names) for names in wanted] == [["repurchase"]] * len(events)
        return [b'{"repurchase":"%b"}' % one.id.encode() for one in events]

    def publish(self, topic: str, messages: list[dict[str, Any]]) -> None:
        assert topic == "out"
        self.published += messages


def test_one_request_for_a_batch_and_each_event_gets_its_own_score() -> None:
    there = Recorder()
    stage = EnricherStage(REGISTRY, there, there.publish, "out")
    events = [raw(id="a"), purchase("b"), raw(id="c"), purchase("d")]
    items = [(message, stage.parse(message)) for n, one in enumerate(events) for message in [Fake(("in", 0), n, event.encode(one))]]
    assert stage.deliver(items) == []
    assert there.asked == [["b", "d"]]
    out = [event.decode_enriched(message["value"]) for message in there.published]
    assert [(one.id, bytes(one.enrichment)) for one in out] == [
        ("a", b"{}"),
        ("b", b'{"repurchase":"b"}'),
        ("c", b"{}"),
        ("d", b'{"repurchase":"d"}'),
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
