"""Whatever bytes come in: as many events out as in, and nothing raised but what is documented."""

import json
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import cloudevents, jsontext, segment
from collector.accept import Limits, Outcome, Sending, TooMany, accept, letter, utc
from collector.fast import Fast, judge_batch, judge_one
from collector.reading import Form, read_batch, read_one
from headrace import dead_letter, event
from headrace.dead_letter import Invalid, Reason
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits(event_bytes=2000, events=20, depth=8)
RECEIPT = event.Receipt(collector_id="c1", protocol="cloudevents", key_id="abcdef12")
SENDING = Sending(RECEIPT, "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
SEGMENT = segment.form("website", REGISTRY)

EVENT: dict[str, Any] = {
    "id": "e1",
    "source": "shop",
    "type": "purchase",
    "time": "2026-01-31T12:00:00Z",
    "subject": "c1",
    "data": {"quantity": 1, "amount_usd": 9.5},
}


fast: Fast | None = None


@pytest.fixture(params=["python", "native"], autouse=True, scope="module")
def implementation(request: pytest.FixtureRequest) -> None:
    """All of these tests run on both."""
    global fast  # noqa: PLW0603 - hypothesis wants no fixture for each example
    fast = Fast(REGISTRY, LIMITS) if request.param == "native" else None


def taken(body: bytes, form: Form = cloudevents.FORM) -> Outcome:
    return judge_batch(body, form, SENDING, fast)


def one(**changes: Any) -> Outcome:
    changed = {name: value for name, value in (EVENT | changes).items() if value is not ...}
    return taken(b"[" + json.dumps(changed).encode() + b"]")


def raw(outcome: Outcome) -> event.RawEvent:
    assert outcome.rejected == []
    (message,) = outcome.messages
    return event.decode_raw(message[1])


def reason(outcome: Outcome) -> tuple[str, str]:
    assert list(outcome.messages) == []
    (rejection,) = outcome.rejected
    return rejection.letter.reason, rejection.letter.detail


def test_an_accepted_event_is_complete() -> None:
    (key, value) = one().messages[0]
    assert key == b"shop\x1fe1"
    assert orjson.loads(value) == {
        "id": "e1",
        "source": "shop",
        "type": "purchase",
        "time": "2026-01-31T12:00:00Z",
        "received_at": "2026-11-21T10:00:00.000Z",
        "dataschema": "purchase/1-0-0",
        "data": {"quantity": 1, "amount_usd": 9.5},
        "receipt": {"collector_id": "c1", "protocol": "cloudevents", "key_id": "abcdef12"},
        "subject": "c1",
    }


def test_data_goes_out_byte_for_byte() -> None:
    body = b'[{"id":"e","source":"s","type":"login","subject":"u","data": {"method" :"pass\\u0077ord",  "x": 1.50e3}}]'
    assert bytes(raw(taken(body)).data) == b'{"method" :"pass\\u0077ord",  "x": 1.50e3}'


def test_a_client_cannot_set_what_the_server_owns() -> None:
    event_ = raw(one(received_at="1999-01-01T00:00:00Z", receipt={"collector_id": "evil"}, enriched_at="x", enrichment={}))
    assert (event_.received_at, event_.receipt) == ("2026-11-21T10:00:00.000Z", RECEIPT)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"id": ...}, Reason.MISSING_ATTRIBUTE),
        ({"id": ""}, Reason.MISSING_ATTRIBUTE),
        ({"id": None}, Reason.MISSING_ATTRIBUTE),
        ({"id": 5}, Reason.MALFORMED),
        ({"id": "x" * 201}, Reason.INVALID_ATTRIBUTE),
        ({"id": "a\x00b"}, Reason.INVALID_ATTRIBUTE),
        ({"id": "a\x1fb"}, Reason.INVALID_ATTRIBUTE),
        ({"id": "a\x85b"}, Reason.INVALID_ATTRIBUTE),
        ({"source": ...}, Reason.MISSING_ATTRIBUTE),
        ({"source": "x" * 201}, Reason.INVALID_ATTRIBUTE),
        ({"type": ...}, Reason.MISSING_ATTRIBUTE),
        ({"type": "nothing"}, Reason.UNKNOWN_TYPE),
        ({"subject": ...}, Reason.MISSING_ATTRIBUTE),
        ({"subject": "x" * 501}, Reason.INVALID_ATTRIBUTE),
        ({"time": "yesterday"}, Reason.INVALID_ATTRIBUTE),
        ({"time": ""}, Reason.INVALID_ATTRIBUTE),
        ({"time": "2026-01-31T12:00:00"}, Reason.INVALID_ATTRIBUTE),
        ({"time": "2026-02-30T12:00:00Z"}, Reason.INVALID_ATTRIBUTE),
        ({"time": "2026-01-31"}, Reason.INVALID_ATTRIBUTE),
        ({"time": "0001-01-01T00:00:00+23:00"}, Reason.INVALID_ATTRIBUTE),
        ({"time": 5}, Reason.MALFORMED),
        ({"dataschema": "purchase/9-0-0"}, Reason.UNKNOWN_SCHEMA),
        ({"dataschema": "login/1-0-0"}, Reason.UNKNOWN_SCHEMA),
        ({"specversion": "0.3"}, Reason.INVALID_ATTRIBUTE),
        ({"data": ...}, Reason.MISSING_ATTRIBUTE),
        ({"data": None}, Reason.MALFORMED),
        ({"data": [1]}, Reason.MALFORMED),
        ({"data": "text"}, Reason.MALFORMED),
        ({"data": {"": 1}}, Reason.MALFORMED),
        ({"data": {" ": 1}}, Reason.MALFORMED),
        ({"data": {".": 1}}, Reason.MALFORMED),
        ({"data": {"a..b": 1}}, Reason.MALFORMED),
        ({"data": {"a": [{"": 1}]}}, Reason.MALFORMED),
        ({"data": {"a": [[[[[[[[1]]]]]]]]}}, Reason.MALFORMED),
        ({"data": {"a": "x" * 2000}}, Reason.TOO_LARGE),
        ({"data": ..., "data_base64": "!!"}, Reason.UNPARSEABLE),
    ],
)
def test_a_broken_attribute_is_named(changes: dict[str, Any], expected: Reason) -> None:
    found, detail = reason(one(**changes))
    assert found == expected
    assert next(iter(changes)).split("_")[0] in detail or expected in (Reason.TOO_LARGE, Reason.UNKNOWN_TYPE)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31T12:00:00.123456Z", "2026-01-31T12:00:00.123456Z"),
        ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123457Z"),
        ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00Z"),
        ("2026-01-31 12:00:00.5-01:30", "2026-01-31T13:30:00.500000Z"),
    ],
)
def test_time_is_kept_in_utc(sent: str, kept: str) -> None:
    assert utc(sent) == kept


def test_defaults() -> None:
    accepted = raw(one(time=..., type="login", subject="u", dataschema=None))
    assert (accepted.time, accepted.dataschema) == ("2026-11-21T10:00:00.000Z", "login/1-0-0")
    assert raw(one(type="page_view", subject="")).subject is None
    assert bytes(raw(one(data=..., data_base64="eyJhIjoxfQ==")).data) == b'{"a":1}'
    assert raw(one(type="Order Completed")).type == "purchase"
    assert raw(one(subject="größe\u00a0🚀")).subject == "größe\u00a0🚀"


BAD_IN_BATCH = {
    "an id that is no text": (b'{"id":7}', Reason.MALFORMED),
    "no object": (b"5", Reason.MALFORMED),
    "a lone surrogate in data": (rb'{"id":"x","source":"s","type":"login","subject":"u","data":{"a":"\ud800"}}', Reason.UNPARSEABLE),
    "a lone low surrogate": (rb'{"id":"\uDFFF"}', Reason.UNPARSEABLE),
    "bytes in an id that are no UTF-8": (b'{"id":"\xff"}', Reason.UNPARSEABLE),
    "bytes in data that are no UTF-8": (b'{"id":"x","source":"s","type":"login","subject":"u","data":{"a":"\xff"}}', Reason.UNPARSEABLE),
    "a number beyond double": (b'{"id":"x","source":"s","type":"login","subject":"u","data":{"a":1e999}}', Reason.UNPARSEABLE),
    "a key twice": (b'{"id":"x","source":"s","type":"login","subject":"u","data":{"a":1,"a":2}}', Reason.MALFORMED),
    "a key twice, deep": (b'{"id":"x","source":"s","type":"login","subject":"u","data":{"b":[{"a":1 , "a" : ":"}]}}', Reason.MALFORMED),
    "a key twice, by escape": (rb'{"id":"x","source":"s","type":"login","subject":"u","data":{"a":1,"\u0061":2}}', Reason.MALFORMED),
    "too much": (b'{"id":"' + b"x" * 3000 + b'"}', Reason.TOO_LARGE),
}


@pytest.mark.parametrize("name", BAD_IN_BATCH)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_event_spoils_no_other(name: str, place: int) -> None:
    bad, expected = BAD_IN_BATCH[name]
    events = [json.dumps(EVENT).encode(), json.dumps(EVENT | {"id": "e2"}).encode()]
    events.insert(place, bad)
    outcome = taken(b" [" + b" , ".join(events) + b"]\n")
    assert [key for key, _ in outcome.messages] == [b"shop\x1fe1", b"shop\x1fe2"]
    (rejection,) = outcome.rejected
    assert (rejection.index, rejection.letter.reason) == (place, expected)
    assert rejection.letter.payload_bytes() == bad


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        (b'{"url":"http://x:80/","title":"a \\": b"}', True),
        (b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', True),
        (b'{"a.b":1,"c d":2,"\xc3\xbc-1":{"x y":1}}', True),
        (b'{"a":"\\u0000","n":123456789012345678901234567890}', True),
        (b'{"r":{"service.name":"x","a.b.c":[{"d.e":"\\":"}]}}', True),
        (b'{"r":{"service.name":"x","service.name":"y"}}', False),
        (b'{"a":"x:y","a":1}', False),
        (b'{"a" :1,"a":"\\":"}', False),
        (b'{\n"a"\t:1,\n"a":2}', False),
    ],
)
def test_repeated_keys_are_found_and_nothing_else(text: bytes, fine: bool) -> None:
    try:
        jsontext.check_object(text, 32)
        found = None
    except Invalid as problem:
        found = problem.reason
    assert found == (None if fine else Reason.MALFORMED)


keys = st.text(st.sampled_from('ab":\\ \n{[ü.'), max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | keys,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, json_values, max_size=4), st.sampled_from([None, 1]), st.booleans())
def test_an_object_is_refused_only_for_blank_keys(value: dict[str, Any], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode()

    def blank(part: Any) -> bool:
        if isinstance(part, dict):
            return any(not piece.strip() for key in part for piece in key.split(".")) or any(map(blank, part.values()))
        return isinstance(part, list) and any(map(blank, part))

    try:
        jsontext.check_object(text, 32)
        assert not blank(value)
    except Invalid:
        assert blank(value)


@given(st.lists(st.tuples(keys.filter(bool), json_values), min_size=1, max_size=3), st.sampled_from([":", " :", "\n:", ": "]))
def test_a_repeated_key_is_always_found(pairs: list[tuple[str, Any]], colon: str) -> None:
    members = [json.dumps(key) + colon + json.dumps(value) for key, value in [*pairs, pairs[0]]]
    with pytest.raises(Invalid):
        jsontext.check_object(("{" + ",".join(members) + "}").encode(), 32)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Reason.UNPARSEABLE),
        (b"nonsense", Reason.UNPARSEABLE),
        (b"[{]", Reason.UNPARSEABLE),
        (b"[NaN]", Reason.UNPARSEABLE),
        (b'{"a":1}', Reason.MALFORMED),
        (b"[" * 100_000, Reason.MALFORMED),
        (b"\xef\xbb\xbf[]", Reason.UNPARSEABLE),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_as_a_whole(body: bytes, expected: Reason) -> None:
    with pytest.raises(Invalid) as caught:
        taken(body)
    assert caught.value.reason == expected


def test_more_events_than_allowed() -> None:
    assert len(taken(b"[" + b",".join([b"{}"] * 20) + b"]").rejected) == 20
    for filler in (b"{}", b"5"):
        with pytest.raises(TooMany):
            taken(b"[" + b",".join([filler] * 21) + b"]")


def test_a_large_payload_is_cut_to_what_kafka_takes() -> None:
    for payload in (b"a" * 4_000_000, b"\x01" * 4_000_000, b'"' * 4_000_000, b"\xff" * 4_000_000):
        one_letter = letter(Invalid(Reason.UNPARSEABLE, "x" * 1000), payload, SENDING)
        assert len(dead_letter.encode(one_letter)) < 1_000_000
        assert payload.startswith(one_letter.payload_bytes())
        assert "payload cut to 600000 of 4000000 bytes" in one_letter.detail


def well_formed(outcome: Outcome, count: int) -> None:
    assert len(outcome.messages) + len(outcome.rejected) == count
    indices = [rejection.index for rejection in outcome.rejected]
    assert indices == sorted(set(indices))
    assert all(0 <= index < count for index in indices)
    for _, value in outcome.messages:
        orjson.loads(value)
        REGISTRY.schema_ref(event.decode_raw(value).type, event.decode_raw(value).dataschema)
    for rejection in outcome.rejected:
        assert dead_letter.decode(dead_letter.encode(rejection.letter)) == rejection.letter


scraps = st.sampled_from([*(bad for bad, _ in BAD_IN_BATCH.values()), json.dumps(EVENT).encode(), b"[]", b"null", b'{"batch":[]}'])
names = st.sampled_from(
    ["id", "source", "type", "time", "subject", "dataschema", "data", "messageId", "event", "userId", "properties", "x"]
)
values = json_values | st.sampled_from(["purchase", "login", "track", "page", "2026-01-31T12:00:00Z", "u1"])
almost = st.dictionaries(names, values).map(lambda changes: json.dumps(EVENT | changes).encode())


@given(st.lists(scraps | almost, max_size=6))
def test_n_in_n_out(events: list[bytes]) -> None:
    well_formed(taken(b"[" + b",".join(events) + b"]"), len(events))
    well_formed(taken(b'{"batch":[' + b",".join(events) + b"]}", SEGMENT), len(events))


@given(st.binary() | st.lists(scraps | st.binary(max_size=5)).map(b"".join))
def test_any_bytes_are_answered(body: bytes) -> None:
    for read, judge, form in (
        (read_batch, judge_batch, cloudevents.FORM),
        (read_one, judge_one, cloudevents.FORM),
        (read_batch, judge_batch, SEGMENT),
        (read_one, judge_one, SEGMENT),
    ):
        try:
            sent, _ = read(body, form, LIMITS)
        except (Invalid, TooMany):
            with pytest.raises((Invalid, TooMany)):
                judge(body, form, SENDING, fast)
            continue
        well_formed(judge(body, form, SENDING, fast), len(sent))


@given(st.binary(), st.dictionaries(st.sampled_from(["ce-id", "ce-type", "ce-time", "ce-source", "ce-subject"]), st.text(max_size=20)))
def test_any_binary_event_is_answered(body: bytes, headers: dict[str, str]) -> None:
    try:
        sent, texts = cloudevents.read_binary(body, headers, LIMITS)
    except Invalid:
        return
    well_formed(accept(sent, texts, SENDING), 1)


def test_what_msgspec_lets_pass_is_refused_here() -> None:
    """msgspec only skips over what stays raw: the check of data must not rely on it."""
    for text in (b'{"a":"\xff"}', b'{"a":1e999}'):
        msgspec.json.decode(text, type=msgspec.Raw)
        with pytest.raises(Invalid):
            jsontext.check_object(text, 32)
