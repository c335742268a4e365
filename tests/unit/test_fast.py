"""Native code and Python have the same outcome, whatever the body; and native code does the work where it can."""

import json
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import cloudevents, rpc, segment
from collector.accept import Limits, Outcome, Sending, SentEvent, TooMany, Unreadable, accept
from collector.fast import Fast, judge_batch, judge_one
from collector.reading import Form
from collector.v1 import collector_pb2 as pb
from headrace import event
from headrace.dead_letter import Invalid
from headrace.protobuf import Messages
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits(event_bytes=2000, events=20, depth=8)
RECEIPT = event.Receipt(collector_id="c1", protocol="cloudevents", key_id="abcdef12", user_agent='"größe"\\')
FREE = Sending(RECEIPT, "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
BOUND = FREE._replace(source="shop", types=frozenset({"purchase", "login"}))
SEGMENT = segment.form("web site", REGISTRY)
FAST = Fast(REGISTRY, LIMITS)
MESSAGES = Messages.load(Path(__file__).parents[2] / "schemas", REGISTRY.schemas)

EVENT: dict[str, Any] = {
    "specversion": "1.0", "id": "e1", "source": "shop", "type": "purchase", "time": "2026-01-31T12:00:00.5Z", "subject": "größe 1",
    "dataschema": "purchase/1-0-0", "data": {"quantity": 1, "amount_usd": 9.5, "tags": ["a", {"b": None}], "flat": True, "x": -1.5e-3},
}  # fmt: skip
CALL: dict[str, Any] = {
    "type": "track", "event": "Order Completed", "messageId": "m1", "userId": "u1", "anonymousId": None,
    "timestamp": "2026-01-31T12:00:00Z", "properties": EVENT["data"], "context": {"library": {"name": "x"}, "ids": []},
}  # fmt: skip

Result = tuple[list[tuple[bytes, bytes]], list[Any]] | tuple[type[Exception], str]


def result(judge: Callable[[], Outcome]) -> Result:
    """An outcome without the ids of its dead letters, or what was raised."""
    try:
        outcome = judge()
    except (Invalid, TooMany) as refused:
        return type(refused), str(refused)
    return list(outcome.messages), [(one.index, msgspec.structs.replace(one.letter, dead_letter_id="")) for one in outcome.rejected]


def same(judge: Callable[..., Outcome], body: bytes, form: Form, sending: Sending) -> Result:
    native = result(lambda: judge(body, form, sending, FAST))
    assert native == result(lambda: judge(body, form, sending, None))
    return native


def same_everywhere(body: bytes) -> None:
    for sending in (FREE, BOUND):
        for judge in (judge_batch, judge_one):
            for form in (cloudevents.FORM, SEGMENT):
                same(judge, body, form, sending)


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


texts = st.text(st.sampled_from('aZ09 "\\/\x00\x1f\x7f\x85é🚀\u2028._-:'), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["2026-01-31T12:00:00Z", "login", "track", "shop"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(["a", "b", "id"]), inner, max_size=3),
    max_leaves=6,
)
times = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | st.from_regex(
    r"[0-2][09]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,7})?(Z|\+01:00)?", fullmatch=True
)
changes = st.dictionaries(st.sampled_from([*EVENT, *CALL, "data_base64", "traits", "name", "unknown"]), json_values, max_size=2)
events = st.builds(
    lambda base, change, time: base | {"time": time, "timestamp": time} | change, st.sampled_from([EVENT, CALL]), changes, times
)


@settings(max_examples=400, deadline=None)
@given(st.lists(events | json_values, max_size=4), st.booleans(), st.sampled_from([None, 1]))
def test_the_same_outcome_for_anything_like_events(sent: list[Any], ascii_: bool, indent: int | None) -> None:
    for whole in (sent, {"batch": sent}, sent[0] if sent else None):
        body = json.dumps(whole, ensure_ascii=ascii_, indent=indent).encode()
        same_everywhere(body)


SEEDS = [text(EVENT), text([EVENT, EVENT]), text({"batch": [CALL, CALL], "sentAt": "x"}), text([EVENT | {"data": {"a": [[[[[[[1]]]]]]]}}])]
PIECES = [
    *(bytes([byte]) for byte in b'"\\{}[],: -0.\x00\n\xff'),
    *(b"null", b"1e9", b"1e999", rb"\u0000", rb"\ud83d\ude80", rb"\ud800", rb"\u00e9", b"\xc2\x85"),
    *(b'"id":"x",', b'"data":{"a":1},', b'"batch":[],', b'"a":1,', b"x" * 2100),
]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(SEEDS), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_same_outcome_for_bodies_with_faults(seed: bytes, faults: int, chance: random.Random) -> None:
    body = seed
    for _ in range(faults):
        place = chance.randrange(len(body) + 1)
        body = body[:place] + chance.choice(PIECES) + body[place + chance.choice((0, 0, 1, 3)) :]
    same_everywhere(body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_the_same_outcome_for_any_bytes(body: bytes) -> None:
    same_everywhere(body)


@pytest.mark.parametrize("special", ['"', "\\", "\x00", "\x1f", "\x7f", "\x85", "\xa0", "é", "ÿ", "🚀", "!", "~", "\x20"])
def test_the_same_outcome_wherever_in_a_text_a_special_character_stands(special: str) -> None:
    """Native code looks at eight bytes at a time."""
    for place in range(18):
        attribute = "a" * place + special + "b" * (17 - place)
        raw = text(EVENT).replace(b'"shop"', f'"{attribute}"'.encode())
        for body in (text(EVENT | {"id": attribute}), text(EVENT | {"data": {"quantity": 1, "x": attribute}}), raw):
            same_everywhere(body)
            same_everywhere(body[: -1 - place])


def proto(**fields: Any) -> pb.Event:
    base = {"id": "e1", "source": "shop", "type": "purchase", "time": "2026-01-31T12:00:00Z", "subject": "c1", "json": b'{"quantity":1}'}
    return pb.Event(**(base | fields))


def read(sent: bytes) -> SentEvent | Unreadable:
    return rpc.event_of(pb.Event.FromString(sent), LIMITS.event_bytes, MESSAGES)


def ordinary(request: pb.PublishRequest, sending: Sending) -> Outcome:
    sent = [rpc.event_of(one, LIMITS.event_bytes, MESSAGES) for one in request.events]
    return accept(sent, lambda: [one.SerializeToString() for one in request.events], sending)


fields = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("id", "source", "type", "time", "subject", "dataschema"), texts)
    | {"json": json_values.map(text) | st.binary(max_size=10) | st.just(b' {"a":1} ')},
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.builds(lambda changed: proto(**changed), fields), max_size=4))
def test_the_same_outcome_for_protobuf(sent: list[pb.Event]) -> None:
    request = pb.PublishRequest(events=sent)
    for sending in (FREE, BOUND):
        outcome = FAST.protobuf(request.SerializeToString(), read, sending)
        assert outcome is not None
        assert result([outcome].pop) == result(partial(ordinary, request, sending))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_broken_protobuf_is_vouched_for_only_where_it_means_the_same(place: int, fault: bytes) -> None:
    body = pb.PublishRequest(events=[proto(), proto(id="e2")]).SerializeToString()
    body = body[:place] + fault + body[place + 1 :]
    found = FAST._for(None).protobuf(body, b"", b"2026-11-21T10:00:00.000Z", b"{}")
    if found is not None and not found[1]:
        outcome = FAST.protobuf(body, read, FREE)
        assert outcome is not None
        assert result(lambda: outcome) == result(lambda: ordinary(pb.PublishRequest.FromString(body), FREE))


def test_native_code_vouches_for_ordinary_events() -> None:
    about = (b"2026-11-21T10:00:00.000Z", b"{}")
    acceptor = FAST._for(None)
    for count, found in (
        (3, acceptor.cloudevents(text([EVENT] * 3), True, b"", *about)),
        (1, acceptor.cloudevents(text(EVENT), False, b"shop", *about)),
        (3, acceptor.tracks(text({"batch": [CALL] * 3}), b"web site", *about)),
        (3, acceptor.protobuf(pb.PublishRequest(events=[proto()] * 3).SerializeToString(), b"", *about)),
    ):
        assert found is not None
        assert found[1] == []
        assert len(found[0]) == count
        assert found[0].size == sum(len(key) + len(value) for key, value in found[0])
    found = acceptor.cloudevents(text([EVENT, 5, EVENT]), True, b"", *about)
    assert found is not None
    assert len(found[0]) == 2
    assert found[1] == [(1, text([EVENT]).index(b"]", -1) + 2, text([EVENT]).index(b"]", -1) + 3)]


def test_messages_in_native_memory_are_a_sequence() -> None:
    found = FAST._for(None).cloudevents(text([EVENT | {"id": name} for name in "abc"]), True, b"", b"2026-11-21T10:00:00.000Z", b"{}")
    assert found is not None
    messages = found[0]
    assert isinstance(messages, Sequence)
    assert [key for key, _ in messages] == [b"shop\x1fa", b"shop\x1fb", b"shop\x1fc"]
    assert list(reversed(messages)) == [messages[2], messages[1], messages[-3]]
    with pytest.raises(IndexError):
        messages[3]


def test_an_event_that_goes_the_ordinary_way_keeps_its_place() -> None:
    sent: list[Any] = [
        EVENT | {"id": "a"},
        EVENT | {"id": "b\t"},
        EVENT | {"id": "c", "time": "2026-01-31T13:00:00+01:00"},
        5,
        EVENT | {"id": "e"},
    ]
    outcome = judge_batch(text(sent), cloudevents.FORM, FREE, FAST)
    assert [key for key, _ in outcome.messages] == [b"shop\x1fa", b"shop\x1fc", b"shop\x1fe"]
    assert [one.index for one in outcome.rejected] == [1, 3]


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "schemas" / "examples").rglob("*.pass.json")), ids=lambda path: path.name
)
def test_every_example_has_the_same_outcome(path: Path) -> None:
    body = text(
        [
            EVENT
            | {
                "type": path.parent.name,
                "dataschema": f"{path.parent.name}/{path.name.split('.')[0]}",
                "data": json.loads(path.read_bytes()),
            }
        ]
    )
    same(judge_batch, body, cloudevents.FORM, FREE)
    assert len(judge_batch(body, cloudevents.FORM, FREE, FAST).messages) == 1
