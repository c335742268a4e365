"""Each call of Segment's wire format becomes the event that the tracking plan has for it."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from collector import segment
from collector.accept import Limits, Outcome, Sending
from collector.fast import Fast, judge_batch, judge_one
from headrace import event
from headrace.dead_letter import Reason
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits()
SENDING = Sending(event.Receipt(collector_id="c1", protocol="segment"), "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)


fast: Fast | None = None


@pytest.fixture(params=["python", "native"], autouse=True, scope="module")
def implementation(request: pytest.FixtureRequest) -> None:
    global fast  # noqa: PLW0603
    fast = Fast(REGISTRY, LIMITS) if request.param == "native" else None


def batch(*calls: Any) -> Outcome:
    body = json.dumps({"batch": calls, "sentAt": "2026-11-21T10:00:00Z", "writeKey": "ignored here"}).encode()
    return judge_batch(body, segment.form("website", REGISTRY), SENDING, fast)


def event_of(outcome: Outcome) -> event.RawEvent:
    assert outcome.rejected == []
    (message,) = outcome.messages
    return event.decode_raw(message[1])


@pytest.mark.parametrize(
    ("call", "type", "subject", "data"),
    [
        ({"type": "track", "event": "Order Completed", "userId": "u", "properties": {"quantity": 1}}, "purchase", "u", {"quantity": 1}),
        ({"type": "track", "event": "Product Added", "anonymousId": "a"}, "add_to_cart", "a", {}),
        ({"type": "track", "event": "Add To Cart", "userId": "u", "anonymousId": "a"}, "add_to_cart", "u", {}),
        ({"type": "track", "event": "addToCart"}, "add_to_cart", None, {}),
        ({"type": "track", "event": "Button-Click", "properties": None}, "button_click", None, {}),
        ({"type": "track", "event": "PURCHASE", "userId": 42}, "purchase", "42", {}),
        ({"type": "identify", "userId": "u", "traits": {"email": "a@b.c"}, "properties": {"x": 1}}, "identify", "u", {"email": "a@b.c"}),
        ({"type": "identify", "userId": "u", "context": {"traits": {"plan": "pro"}}}, "identify", "u", {"plan": "pro"}),  # RudderStack
        ({"type": "identify", "userId": "u", "traits": {"a": 1}, "context": {"traits": {"b": 2}}}, "identify", "u", {"a": 1}),
        ({"type": "identify", "userId": "u", "context": "odd"}, "identify", "u", {}),
        ({"type": "identify", "userId": "u", "traits": None, "context": None}, "identify", "u", {}),
        ({"type": "track", "event": "login", "userId": "u", "context": {"traits": {"plan": "pro"}}}, "login", "u", {}),
        ({"type": "page", "userId": "u", "properties": {"url": "http://x/"}}, "page_view", "u", {"url": "http://x/"}),
        ({"type": "page", "name": "Home", "category": "Docs", "properties": {"url": "/"}}, "page_view", None,
         {"name": "Home", "category": "Docs", "url": "/"}),
        ({"type": "page", "name": "Home", "properties": {"name": "Own"}}, "page_view", None, {"name": "Own"}),
        ({"type": "screen", "name": "Home"}, "screen_view", None, {"name": "Home"}),
        ({"type": "group", "userId": "u", "groupId": "g", "traits": {"name": "Acme"}}, "group", "u", {"group_id": "g", "name": "Acme"}),
        ({"type": "alias", "userId": "new", "previousId": "old"}, "alias", "new", {"previous_id": "old"}),
        ({"type": "feedback", "userId": "u", "properties": {"truth": 1}}, "feedback", "u", {"truth": 1}),
        ({"type": "track", "event": "Feedback", "properties": {"truth": 1}}, "feedback", None, {"truth": 1}),
    ],
)  # fmt: skip
def test_each_call_has_its_event(call: dict[str, Any], type: str, subject: str | None, data: dict[str, Any]) -> None:
    found = event_of(batch({"messageId": "m1", "context": {"ip": "1.2.3.4"}} | call))
    assert (found.id, found.source, found.type, found.subject) == ("m1", "website", type, subject)
    assert orjson.loads(bytes(found.data)) == data


@pytest.mark.parametrize(
    ("times", "time"),
    [
        ({"timestamp": "2026-01-01T00:00:00.000+01:00", "originalTimestamp": "2020-01-01T00:00:00Z"}, "2025-12-31T23:00:00Z"),
        ({"originalTimestamp": "2020-01-01T00:00:00Z"}, "2020-01-01T00:00:00Z"),
        ({"timestamp": None}, "2026-11-21T10:00:00.000Z"),
        ({}, "2026-11-21T10:00:00.000Z"),
    ],
)
def test_time(times: dict[str, Any], time: str) -> None:
    assert event_of(batch({"type": "page", "messageId": "m"} | times)).time == time


@pytest.mark.parametrize(
    ("call", "reason", "id"),
    [
        ({"type": "track", "messageId": "m", "event": "No Such Thing"}, Reason.UNKNOWN_TYPE, "m"),
        ({"type": "track", "messageId": "m"}, Reason.MISSING_ATTRIBUTE, "m"),
        ({"type": "shout", "messageId": "m"}, Reason.UNKNOWN_TYPE, "m"),
        ({"messageId": "m"}, Reason.MISSING_ATTRIBUTE, "m"),
        ({"type": "page"}, Reason.MISSING_ATTRIBUTE, None),
        ({"type": "page", "messageId": 5}, Reason.MALFORMED, None),
        ({"type": "page", "messageId": "m", "userId": ["u"]}, Reason.MALFORMED, "m"),
        ({"type": "page", "messageId": "m", "properties": [1]}, Reason.MALFORMED, "m"),
        ({"type": "page", "messageId": "m", "name": "x", "properties": "text"}, Reason.MALFORMED, "m"),
        ({"type": "identify", "messageId": "m"}, Reason.MISSING_ATTRIBUTE, "m"),
        ({"type": "page", "messageId": "m", "timestamp": "x"}, Reason.INVALID_ATTRIBUTE, "m"),
        ("text", Reason.MALFORMED, None),
    ],
)
def test_a_bad_call_is_named_and_spoils_no_other(call: Any, reason: Reason, id: str | None) -> None:
    outcome = batch({"type": "page", "messageId": "first"}, call, {"type": "page", "messageId": "last"})
    assert [key for key, _ in outcome.messages] == [b"website\x1ffirst", b"website\x1flast"]
    (rejection,) = outcome.rejected
    assert (rejection.index, rejection.letter.reason, rejection.letter.id) == (1, reason, id)
    assert orjson.loads(rejection.letter.payload) == call


def test_the_path_says_the_type_of_a_single_call() -> None:
    form = segment.form("website", REGISTRY, "page")
    outcome = judge_one(b'{"type":"track","messageId":"m"}', form, SENDING, fast)
    assert event_of(outcome).type == "page_view"


def test_members_of_the_call_go_beside_data_as_it_was() -> None:
    body = b'{"messageId":"m","name":"N","properties":{"price":1.50,"big":12345678901234567890123}}'
    outcome = judge_one(body, segment.form("website", REGISTRY, "page"), SENDING, fast)
    assert bytes(event_of(outcome).data) == b'{"name":"N","price":1.50,"big":12345678901234567890123}'


@pytest.mark.parametrize(
    ("body", "key"),
    [(b'{"writeKey":"k","batch":[]}', "k"), (b'{"batch":[]}', None), (b'{"writeKey":5}', None), (b"x", None), (b'["writeKey"]', None)],
)
def test_write_key_of_a_body(body: bytes, key: str | None) -> None:
    assert segment.write_key(body) == key
