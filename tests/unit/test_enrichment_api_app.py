"""The scoring interface: one answer for each event, in order, and a clear refusal of anything else."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from enrichment_api.app import Limits, make_app
from enrichment_api.customers import Customers
from enrichment_api.model import Model
from enrichment_api.scoring import microseconds
from enrichment_api.serving import Serving
from enrichment_api.train import train
from headrace.features import STATE, features
from headrace.registry import Registry
from tests.unit.test_train import write_purchases

LAST = np.datetime64("1998-01-01", "us")
STATE_OF_C1 = np.array([(LAST - np.timedelta64(100, "D"), LAST, 8, 20, 300)], STATE)
MAX_BODY = 1_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("model")
    train(write_purchases(folder / "purchases.txt"), folder)
    return Model.load(folder)


@pytest.fixture(scope="module")
def api(model: Model) -> TestClient:
    customers = Customers.of([([("shop", "c-1")], STATE_OF_C1)])
    serving = Serving.alone(model)
    return TestClient(make_app(lambda: serving, lambda: customers, Limits(MAX_BODY)))


def _event(**values: Any) -> dict[str, Any]:
    data = {"quantity": 2, "amount_usd": 28.98}
    return {"id": "o-1", "source": "shop", "type": "purchase", "time": "1998-01-11T00:00:00Z", "subject": "c-1", "data": data} | values


def _score(api: TestClient, *events: dict[str, Any]) -> list[dict[str, Any]]:
    response = api.post("/v1/score", json={"events": events})
    assert response.status_code == 200, response.text
    answers: list[dict[str, Any]] = response.json()["enrichments"]
    assert len(answers) == len(events)
    return answers


def test_each_event_gets_what_the_model_says_of_it(api: TestClient, model: Model) -> None:
    time, quantity, amount_usd = np.array(["1998-01-11"], "M8[us]"), np.array([2.0]), np.array([28.98])
    known, _ = features(time, quantity, amount_usd, STATE_OF_C1)
    of_others = (_event(subject="c-2"), _event(source="other"), _event(time="1998-01-01T00:00:00Z"))
    answers = _score(api, _event(), _event(type="login"), *of_others)
    assert answers[0] == {
        "repurchase": {
            "model": "repurchase",
            "version": model.card.version,
            "score": pytest.approx(float(model.score(known)[0])),
            "features": "customer",
            "variant": "champion",
        }
    }
    assert answers[1] == {}
    assert [answer["repurchase"]["features"] for answer in answers[2:]] == ["new", "new", "ahead"]
    assert answers[2] == answers[3]
    assert answers[4]["repurchase"]["score"] == answers[2]["repurchase"]["score"]


def test_a_thousand_events_in_one_request_score_as_they_do_alone(api: TestClient) -> None:
    events = [_event(subject=f"c-{i % 3}", data={"quantity": 1 + i % 7, "amount_usd": i / 10}) for i in range(1000)]
    answers = _score(api, *events)
    assert all(math.isfinite(answer["repurchase"]["score"]) for answer in answers)
    assert [_score(api, event)[0] for event in events[::100]] == answers[::100]


@pytest.mark.parametrize(
    "values",
    [
        {"time": "yesterday"},
        {"time": "1998-01-11"},
        {"time": "1998-01-11T00:00:00"},
        {"data": {}},
        {"data": []},
        {"data": None},
        {"data": {"quantity": "two", "amount_usd": 1}},
    ],
)
def test_a_purchase_that_cannot_be_scored_does_not_spoil_its_batch(api: TestClient, values: dict[str, Any]) -> None:
    good, bad = _score(api, _event(), _event(**values))
    assert good == _score(api, _event())[0]
    assert bad == {}


def test_what_the_validator_takes_is_scored(api: TestClient) -> None:
    """The enricher waits where a purchase that it found valid gets no score: nothing that passes the schema may fail here."""
    texts = [
        b'{"quantity":"x","quantity":2,"amount_usd":28.98}',
        b'{"quantity":2.0,"amount_usd":28.98e0}',
        b'{"amount_usd":28.98,"quantity":2,"more":{"deep":[[[]]]}}',
        b'{"quantity":10000,"amount_usd":1000000}',
        b'{"quantity":1,"amount_usd":0}',
    ]
    registry = Registry.load(Path("schemas"))
    for text in texts:
        registry.validate("purchase/1-0-0", text)
    body = b",".join(json.dumps(_event(data=None)).encode().replace(b"null", text) for text in texts)
    answers = api.post("/v1/score", content=b'{"events":[' + body + b"]}").json()["enrichments"]
    scores = [answer["repurchase"]["score"] for answer in answers]
    assert scores[:3] == [_score(api, _event())[0]["repurchase"]["score"]] * 3
    assert all(0 < score < 1 for score in scores)


@given(st.datetimes(timezones=st.timezones()))
def test_the_moment_is_read_in_utc(moment: Any) -> None:
    offset = moment.utcoffset()
    if offset.seconds % 60 or offset.microseconds:  # RFC 3339 has whole minutes
        return
    here = np.datetime64(moment.replace(tzinfo=None), "us") - np.timedelta64(offset)
    assert np.int64(microseconds(moment.isoformat())).view("M8[us]") == here


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b"", "unparseable", "the body is not JSON in UTF-8"),
        (b"{", "unparseable", "the body is not JSON in UTF-8"),
        (b"\xff\xfe", "unparseable", "the body is not JSON in UTF-8"),
        (b'{"events":[{"id":"\xff"}]}', "unparseable", "the body is not JSON in UTF-8"),
        (b"[]", "invalid", "Expected `object`, got `array`"),
        (b"{}", "invalid", "Object missing required field `events`"),
        (b'{"events":[{"id":7}]}', "invalid", "Expected `str`, got `int` - at `$.events[0].id`"),
        (b'{"events":[' + b",".join([b'{"id":"","source":"","type":"","time":"","data":0}'] * 1001) + b"]}", "invalid", "length <= 1000"),
    ],
)
def test_anything_else_is_refused_with_a_reason(api: TestClient, body: bytes, code: str, message: str) -> None:
    response = api.post("/v1/score", content=body)
    assert response.status_code == 422
    assert response.json()["code"] == code
    assert message in response.json()["message"]


def test_a_body_that_is_too_large_is_refused(api: TestClient) -> None:
    response = api.post("/v1/score", content=b" " * (MAX_BODY + 1))
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"


def test_what_is_not_there_is_said_in_json(api: TestClient) -> None:
    absent, wrong = api.get("/v2/score"), api.get("/v1/score")
    assert (absent.status_code, absent.json()) == (404, {"code": "not_found", "message": "Not Found: see /docs"})
    assert (wrong.status_code, wrong.json()) == (405, {"code": "http", "message": "Method Not Allowed: see /docs"})


def test_no_event_gets_no_enrichment(api: TestClient) -> None:
    assert _score(api) == []


def test_the_other_end_points(api: TestClient, model: Model) -> None:
    _score(api, _event())
    assert api.get("/healthz").json() == {"status": "ok"}
    standing = {"variant": "champion", "version": model.card.version, "share": 1.0, "returned": None}
    said = {"status": "ready", "model": "repurchase", "version": model.card.version, "customers": 1}
    assert api.get("/readyz").json() == said | {"strategy": "recreate", "variants": [standing], "refused": None}
    assert api.get("/v1/models").json()["serving"][0]["variants"] == [standing]
    assert api.get("/v1/models").json()["models"][0]["metrics"]["repurchase"]["auc"] == model.card.metrics["repurchase"].auc
    assert 'enrichment_api_scored_total{features="customer"}' in api.get("/metrics").text
    assert "/v1/score" in api.get("/docs").text or api.get("/docs").status_code == 200
    operation = api.get("/openapi.json").json()["paths"]["/v1/score"]["post"]
    request = operation["requestBody"]["content"]["application/json"]
    assert request["schema"]["properties"]["events"]["maxItems"] == 1000
    assert _score(api, *request["example"]["events"])[0]["repurchase"]["model"] == "repurchase"
    assert set(operation["responses"]) == {"200", "408", "413", "422", "503"}
