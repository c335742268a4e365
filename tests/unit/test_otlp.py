"""OTLP's log records become events, the same in both encodings, and whatever is sent has an answer."""

import contextlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from collector import otlp
from collector.accept import Limits, Outcome, Sending, SentEvent, TooMany, accept
from collector.otlp import answer, binary, events
from headrace import event
from headrace.dead_letter import Invalid, Reason
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits()
SENDING = Sending(event.Receipt(collector_id="c1", protocol="otlp"), "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
ENCODINGS = [otlp.JSON, otlp.PROTOBUF]
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def attributes(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": value} for key, value in values.items()]


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


SHOP = {"attributes": attributes(service__name=text("shop"), host__name=text("web-1"))}
SCOPE = {"name": "shop.payment", "version": "1.2"}


def record(**changes: Any) -> dict[str, Any]:
    """A log record in OTLP/JSON."""
    return {"timeUnixNano": "1769860800123456789", "observedTimeUnixNano": "1769860801000000000", "severityNumber": 9} | changes


def request(*records: Any, resource: Any = SHOP, scope: Any = SCOPE) -> dict[str, Any]:
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": scope, "logRecords": list(records)}]}]}


def encoded(said: dict[str, Any], encoding: str) -> bytes:
    """An export request in OTLP/JSON, in either encoding."""
    if encoding == otlp.JSON:
        return json.dumps(said).encode()
    of = json.loads(json.dumps(said))
    said_logs = [log for one in of["resourceLogs"] for part in one["scopeLogs"] for log in part["logRecords"]]
    found = [(bytes.fromhex(log.pop("traceId", "")), bytes.fromhex(log.pop("spanId", ""))) for log in said_logs]
    message = json_format.ParseDict(of, ExportLogsServiceRequest())
    logs = [log for one in message.resource_logs for part in one.scope_logs for log in part.log_records]
    for log, (trace, span) in zip(logs, found, strict=True):
        log.trace_id, log.span_id = trace, span
    return message.SerializeToString()


def judged(said: dict[str, Any] | bytes, encoding: str, limits: Limits = LIMITS) -> Outcome:
    body = said if isinstance(said, bytes) else encoded(said, encoding)
    return accept(*events.read(body, encoding, REGISTRY, limits), SENDING._replace(limits=limits))


def only(said: dict[str, Any], encoding: str) -> event.RawEvent:
    outcome = judged(said, encoding)
    assert outcome.rejected == []
    (message,) = outcome.messages
    return event.decode_raw(message[1])


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_record_is_an_event_of_type_log(encoding: str) -> None:
    given = record(
        severityText="INFO", body=text("paid"), traceId=TRACE, spanId=SPAN, flags=1,
        attributes=attributes(order__id=text("o-1"), user__id=text("u"))
    )  # fmt: skip
    found = only(request(given), encoding)
    assert (found.type, found.source, found.subject, found.dataschema) == ("log", "shop", "u", "log/1-0-0")
    assert found.time == "2026-01-31T12:00:00.123456Z"
    data = orjson.loads(bytes(found.data))
    assert data == {
        "severity_number": 9, "severity_text": "INFO", "body": "paid", "trace_id": TRACE, "span_id": SPAN,
        "attributes": {"order.id": "o-1"}, "scope": SCOPE, "resource": {"service.name": "shop", "host.name": "web-1"},
    }  # fmt: skip
    REGISTRY.validate("log/1-0-0", bytes(found.data))


def test_a_record_that_names_a_type_of_the_plan_is_of_that_type(encoding: str) -> None:
    values = attributes(quantity={"intValue": "2"}, amount_usd={"doubleValue": 9.5}, user__id=text("u-1"), log__record__uid=text("uid-1"))
    found = only(request(record(eventName="purchase", attributes=values)), encoding)
    assert (found.id, found.type, found.subject) == ("uid-1", "purchase", "u-1")
    assert orjson.loads(bytes(found.data)) == {"quantity": 2, "amount_usd": 9.5}
    REGISTRY.validate("purchase/1-0-0", bytes(found.data))
    named = attributes(event__name=text("Order Completed"), enduser__id=text("u-2"))
    body = {"kvlistValue": {"values": attributes(quantity={"intValue": "1"})}}
    found = only(request(record(body=body, attributes=named)), encoding)
    assert (found.type, found.subject, orjson.loads(bytes(found.data))) == ("purchase", "u-2", {"quantity": 1})
    found = only(request(record(eventName="page_view", body=text("seen"), attributes=attributes(url=text("/")))), encoding)
    assert orjson.loads(bytes(found.data)) == {"body": "seen", "url": "/"}


def test_a_name_that_is_not_in_the_plan_is_kept_in_the_log(encoding: str) -> None:
    found = only(request(record(eventName="cache.evicted")), encoding)
    assert (found.type, orjson.loads(bytes(found.data))["event_name"]) == ("log", "cache.evicted")
    found = only(request(record(attributes=attributes(event__name=text("device.app.lifecycle")))), encoding)
    assert (found.type, orjson.loads(bytes(found.data))["event_name"]) == ("log", "device.app.lifecycle")


def test_values_of_every_kind(encoding: str) -> None:
    inner = {"kvlistValue": {"values": attributes(a={"arrayValue": {"values": [{"boolValue": True}, {}, {"doubleValue": 0.1}]}})}}
    values = attributes(
        empty={}, no={"boolValue": False}, zero={"intValue": "0"}, least={"intValue": str(-(2**63))}, nested=inner,
        bytes={"bytesValue": "/+8="}, nan={"doubleValue": "NaN"}, up={"doubleValue": "Infinity"}, down={"doubleValue": "-Infinity"},
        none=text(""), list={"arrayValue": {}}, map={"kvlistValue": {}},
    )  # fmt: skip
    data = orjson.loads(bytes(only(request(record(attributes=values)), encoding).data))
    assert data["attributes"] == {
        "empty": None, "no": False, "zero": 0, "least": -(2**63), "nested": {"a": [True, None, 0.1]}, "bytes": "/+8=",
        "nan": "NaN", "up": "Infinity", "down": "-Infinity", "none": "", "list": [], "map": {},
    }  # fmt: skip
    body = only(request(record(body=inner)), encoding)
    assert orjson.loads(bytes(body.data))["body"] == '{"a":[true,null,0.1]}'


def test_what_is_absent(encoding: str) -> None:
    found = only(request({}, resource={}, scope={}), encoding)
    assert (found.source, found.time, found.subject) == ("unknown_service", SENDING.received_at, None)
    assert bytes(found.data) == b"{}"
    observed = only(request({"observedTimeUnixNano": "1769860801000000000", "traceId": "0" * 32, "spanId": "ab"}), encoding)
    assert (observed.time, orjson.loads(bytes(observed.data)).keys()) == ("2026-01-31T12:00:01Z", {"scope", "resource"})
    assert judged({"resourceLogs": []}, encoding) == Outcome([], [])


def test_the_same_again_has_the_same_id_and_twins_have_two() -> None:
    one, other = record(body=text("a")), record(body=text("b"))
    ids = [[key for key, _ in judged(request(one, other, one), encoding).messages] for encoding in (*ENCODINGS, otlp.JSON)]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0])) == 3
    first = ids[0][0].decode()
    assert ids[0][2].decode() == f"{first}-2"
    for change in ({"timeUnixNano": "1"}, {"observedTimeUnixNano": "1"}, {"traceId": TRACE}, {"severityNumber": 10}):
        (message,) = judged(request(one | change), otlp.JSON).messages
        assert message[0] not in ids[0]
    elsewhere = request(one, resource={"attributes": attributes(service__name=text("shop"), host__name=text("web-2"))})
    assert judged(elsewhere, otlp.JSON).messages[0][0] not in ids[0]
    given = record(attributes=attributes(log__record__uid=text("u")))
    assert [key for key, _ in judged(request(given, given), otlp.JSON).messages] == [b"shop\x1fu"] * 2


BAD_JSON: dict[str, tuple[Any, Reason]] = {
    "no object": ("text", Reason.MALFORMED),
    "a wrong type": ({"severityNumber": "INFO"}, Reason.MALFORMED),
    "a time that is none": ({"timeUnixNano": "yesterday"}, Reason.MALFORMED),
    "a time before 1970": ({"timeUnixNano": -5}, Reason.MALFORMED),
    "an integer beyond 64 bits": ({"body": {"intValue": str(2**63)}}, Reason.MALFORMED),
    "no number": ({"body": {"doubleValue": "much"}}, Reason.MALFORMED),
    "no base64": ({"body": {"bytesValue": "?"}}, Reason.MALFORMED),
}
BAD: dict[str, tuple[Any, Reason]] = {
    "an attribute twice": ({"attributes": [*attributes(a={}), *attributes(a={})]}, Reason.MALFORMED),
    "a blank key": ({"attributes": [{"key": " ", "value": {}}]}, Reason.MALFORMED),
    "too large": ({"body": text("x" * 33_000)}, Reason.TOO_LARGE),
    "too large as JSON": ({"body": text("\x01" * 10_000)}, Reason.TOO_LARGE),
    "no subject": ({"eventName": "purchase"}, Reason.MISSING_ATTRIBUTE),
}


@pytest.mark.parametrize(
    ("bad", "reason", "encoding"),
    [(*case, encoding) for case in BAD.values() for encoding in ENCODINGS] + [(*case, otlp.JSON) for case in BAD_JSON.values()],
)
def test_a_bad_record_spoils_no_other_and_can_be_sent_again_by_itself(bad: Any, reason: Reason, encoding: str) -> None:
    outcome = judged(request(record(body=text("first")), bad, record(body=text("last"))), encoding)
    assert [orjson.loads(bytes(event.decode_raw(value).data))["body"] for _, value in outcome.messages] == ["first", "last"]
    (rejection,) = outcome.rejected
    assert (rejection.index, rejection.letter.reason) == (1, reason)
    (again,) = judged(rejection.letter.payload_bytes(), encoding).rejected
    assert (again.letter.reason, again.letter.detail) == (reason, rejection.letter.detail)
    if encoding == otlp.JSON:
        assert orjson.loads(rejection.letter.payload) == request(bad)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"intValue": "1"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return value


def test_depth(encoding: str) -> None:
    deepest = LIMITS.depth - 2  # data and its member attributes are two levels
    assert only(request(record(attributes=attributes(a=nested(deepest)))), encoding).type == "log"
    for depth in (deepest + 1, 45, *([60, 150, 200] if encoding == otlp.JSON else [])):
        (rejection,) = judged(request(record(attributes=attributes(a=nested(depth)))), encoding).rejected
        assert rejection.letter.reason == Reason.MALFORMED


def test_broken_bytes_in_a_record_of_protobuf() -> None:
    good = encoded(request(record(body=text("good"))), otlp.PROTOBUF)
    body = encoded(request(record(body=text("goo\xff"))), otlp.PROTOBUF).replace("\xff".encode(), b"\xff\xff")
    outcome = judged(body + good, otlp.PROTOBUF)
    assert [one.letter.reason for one in outcome.rejected] == [Reason.UNPARSEABLE]
    assert [orjson.loads(bytes(event.decode_raw(value).data))["body"] for _, value in outcome.messages] == ["good"]


def test_a_lone_surrogate_costs_its_record_only() -> None:
    body = json.dumps(request(record(body=text("\ud800")), record(body=text("good"), attributes=attributes(a=text("\U0001f600"))))).encode()
    outcome = judged(body, otlp.JSON)
    assert [(one.index, one.letter.reason) for one in outcome.rejected] == [(0, Reason.UNPARSEABLE)]
    assert b'"\\ud800"' in outcome.rejected[0].letter.payload_bytes()
    assert [orjson.loads(bytes(event.decode_raw(value).data))["body"] for _, value in outcome.messages] == ["good"]
    bad_resource = json.dumps(request(record(), resource={"attributes": attributes(host__name=text("\udc00"))})).encode()
    assert [one.letter.reason for one in judged(bad_resource, otlp.JSON).rejected] == [Reason.UNPARSEABLE]


@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (b"", otlp.JSON, Reason.UNPARSEABLE),
        (b"{", otlp.JSON, Reason.UNPARSEABLE),
        (b"[]", otlp.JSON, Reason.MALFORMED),
        (b'{"resourceSpans":[]}', otlp.JSON, Reason.MALFORMED),
        (b'{"resourceLogs":[{"scopeLogs":5}]}', otlp.JSON, Reason.MALFORMED),
        (b"[" * 5_000, otlp.JSON, Reason.MALFORMED),
        (b"\x0a", otlp.PROTOBUF, Reason.UNPARSEABLE),
        (b"\x0a\x02\x12\x05", otlp.PROTOBUF, Reason.UNPARSEABLE),
        (b'{"resourceLogs":[]}', otlp.PROTOBUF, Reason.UNPARSEABLE),
    ],
)
def test_a_body_that_cannot_be_read(body: bytes, encoding: str, reason: Reason) -> None:
    with pytest.raises(Invalid) as caught:
        events.read(body, encoding, REGISTRY, LIMITS)
    assert caught.value.reason == reason


def test_as_many_records_as_an_sdk_sends_by_default(encoding: str) -> None:
    assert len(judged(request(*[record()] * 512), encoding).messages) == 512
    with pytest.raises(TooMany, match="at most 512"):
        judged(request(*[record()] * 513), encoding)
    with pytest.raises(TooMany):
        judged(b"\x0a\x00" * 2_000_000, otlp.PROTOBUF)
    with pytest.raises(TooMany):
        judged({"resourceLogs": [{"scopeLogs": [{"logRecords": [{}]}] * 600}]}, encoding)


@given(st.binary(max_size=300), st.sampled_from(ENCODINGS))
def test_any_bytes_are_answered(body: bytes, encoding: str) -> None:
    with contextlib.suppress(Invalid, TooMany):
        judged(body, encoding)


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["1", "NaN", "a" * 32]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["key", "value", "values", "stringValue", "intValue", "doubleValue", "arrayValue", "kvlistValue", "attributes"]),
        inner, max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(
    st.lists(st.dictionaries(st.sampled_from(["body", "attributes", "timeUnixNano", "traceId", "eventName", "severityNumber"]), JSONISH))
)
def test_n_records_in_are_n_events_out(records: list[Any]) -> None:
    outcome = judged(request(*records), otlp.JSON)
    assert len(outcome.messages) + len(outcome.rejected) == len(records)
    for _, value in outcome.messages:
        assert orjson.loads(bytes(event.decode_raw(value).data)) is not None


@given(st.lists(st.binary(max_size=60)))
def test_n_records_in_are_n_events_out_in_protobuf(records: list[bytes]) -> None:
    scope = binary._ScopeLogs(log_records=records).SerializeToString()
    resource = binary._ResourceLogs(scope_logs=[scope]).SerializeToString()
    sent, texts = events.read(binary._Request(resource_logs=[resource]).SerializeToString(), otlp.PROTOBUF, REGISTRY, LIMITS)
    assert len(sent) == len(texts()) == len(records)


def test_answers_in_the_form_of_otlp() -> None:
    taken = b'{"accepted":2,"rejected":[]}'
    refused = b'{"accepted":1,"rejected":[{"index":1,"id":null,"reason":"malformed","detail":"odd"}]}'
    error = b'{"code":"unavailable","message":"no Kafka"}'
    assert answer.in_form(200, taken, "application/json; charset=utf-8") == (b"{}", otlp.JSON)
    assert answer.in_form(200, taken, otlp.PROTOBUF) == (b"", otlp.PROTOBUF)
    body, media_type = answer.in_form(200, refused, otlp.JSON)
    words = "1 of 2 log records were refused for good; the first is number 1: odd"
    assert orjson.loads(body) == {"partialSuccess": {"rejectedLogRecords": "1", "errorMessage": words}}
    body, media_type = answer.in_form(200, refused, "Application/X-Protobuf")
    success = ExportLogsServiceResponse.FromString(body).partial_success
    assert (success.rejected_log_records, success.error_message, media_type) == (1, words, otlp.PROTOBUF)
    for status, code in {503: 14, 401: 16, 400: 3, 413: 8, 500: 13}.items():
        body, media_type = answer.in_form(status, error, otlp.PROTOBUF)
        said = status_pb2.Status.FromString(body)
        assert (said.code, said.message, len(said.details), media_type) == (code, "unavailable: no Kafka", 0, otlp.PROTOBUF)
        body, media_type = answer.in_form(status, error, "text/html")
        assert (orjson.loads(body), media_type) == ({"code": code, "message": "unavailable: no Kafka"}, otlp.JSON)


def test_an_event_is_what_it_is_whoever_reads_it() -> None:
    (sent,), _ = events.read(encoded(request(record()), otlp.JSON), otlp.JSON, REGISTRY, LIMITS)
    assert isinstance(sent, SentEvent)
    assert len(sent.id or "") == 32
