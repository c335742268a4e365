"""What a key is bound to, how the collector follows the file of the keys, and what no client can set."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from collector import cloudevents, metrics, segment
from collector.accept import Limits, Outcome, Sending, accept
from collector.keywatch import KeyWatch
from collector.quota import OverQuota, Rates
from collector.reading import read_batch, read_one
from collector.rpc import event_of
from collector.senders import Key, Senders
from collector.v1 import collector_pb2 as pb
from headrace import event, keyfile, keys
from headrace.dead_letter import Reason
from headrace.keys import WriteKey
from headrace.protobuf import Messages
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
MESSAGES = Messages.load(Path(__file__).parents[2] / "schemas", REGISTRY.schemas)
NOW = "2026-11-21T10:00:00.000Z"
LIMITS = Limits()


def made(**changes: Any) -> tuple[WriteKey, str]:
    return keys.make(**({"source": "shop", "made_at": NOW} | changes))


def senders(*there: WriteKey, **settings: Any) -> Senders:
    one = Senders({"ready-made": "website"}, "c1", "a secret of the tests", **settings)
    one.use(there)
    return one


def known(one: Senders, text: str) -> Key:
    key = one.known(text)
    assert key is not None
    return key


# ---- which key it is
def test_a_key_is_known_by_all_of_its_text() -> None:
    (first, text), (second, other) = made(), made(source="app")
    one = senders(first, second)
    assert (known(one, text).id, known(one, text).source, known(one, text).only_source) == (first.id, "shop", "shop")
    assert known(one, other).source == "app"
    for wrong in (
        text[:-1],
        text + "x",
        text[:-1] + "-",
        text.lower(),
        other[:12] + text[12:],
        text[:12] + other[12:],
        first.sha256,
        first.id,
    ):
        assert one.known(wrong) is None
    one.use([keys.without_key([first, second], first.id, NOW)[0], second])
    assert one.known(text) is None
    assert known(one, other).source == "app"


@given(st.text(max_size=80) | st.text(max_size=60).map(lambda rest: keys.PREFIX + rest))
def test_any_text_is_answered(text: str) -> None:
    assert KNOWN.known(text) is None


KNOWN = senders(made()[0])


def test_the_ready_made_key_is_bound_to_nothing() -> None:
    key = known(senders(origins=["http://shop.example"]), "ready-made")
    assert (key.source, key.only_source, key.types, set(key.origins)) == ("website", None, None, {"http://shop.example"})
    assert Senders({}, "c1", "secret").known("ready-made") is None


def test_origins() -> None:
    first, text = made(origins=["https://a.example"])
    one = senders(first, made(source="app", origins=["https://b.example"])[0], origins=["http://c.example"])
    assert one.origins == {"https://a.example", "https://b.example", "http://c.example"}
    key = known(one, text)
    assert [key.lets(origin) for origin in (None, "https://a.example", "https://b.example", "null", "*", "")] == [True, True] + [False] * 4
    one.use([])
    assert one.origins == {"http://c.example"}


def test_limits_of_a_key_and_those_of_all() -> None:
    own, none, default = made(events_per_second=1.0)[0], made(events_per_second=0.0, bytes_per_second=0.0)[0], made()[0]
    one = senders(own, none, default, rates=Rates(events=100, bytes=1000))
    by_id = {key.id: key for key in one._of.values()}
    assert by_id[none.id].quota is None
    for id, events in ((own.id, 5), (default.id, 500)):
        quota = by_id[id].quota
        assert quota is not None
        quota.take(events, 5000, 0)
        with pytest.raises(OverQuota):
            quota.take(0, 1, 0)
    assert known(senders(), "ready-made").quota is None
    assert known(senders(rates=Rates(bytes=1)), "ready-made").quota is not None


def test_a_key_that_did_not_change_keeps_its_quota() -> None:
    first, text = made(events_per_second=1.0)
    one = senders(first)
    before = known(one, text)
    one.use([msgspec.convert(msgspec.to_builtins(first), WriteKey), made(source="app")[0]])
    assert known(one, text) is before
    one.use([msgspec.structs.replace(first, events_per_second=2.0)])
    assert known(one, text) is not before


# ---- the file
def test_the_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    one, (key, text), (other, more) = senders(), made(), made(source="app")
    watch = KeyWatch(path, one)
    with capture_logs() as said:
        watch.look()
        assert one.known(text) is None
        keyfile.change(path, lambda there: keys.with_key(there, key))
        watch.look()
        assert known(one, text).id == key.id
        watch.look()
        keyfile.change(path, lambda there: keys.with_key(there, other))
        watch.look()
        assert known(one, more).id == other.id
        path.write_text('{"keys":[')
        for _ in range(3):
            watch.look()
            assert metrics.KEYS_READABLE._value.get() == 0
        assert known(one, text).id == key.id
        path.unlink()
        path.mkdir()
        watch.look()
        assert known(one, text).id == key.id
        path.rmdir()
        keyfile.change(path, lambda _: keys.without_key([key, other], key.id, NOW))
        watch.look()
        assert metrics.KEYS_READABLE._value.get() == 1
        assert (one.known(text), known(one, more).id) == (None, other.id)
        path.unlink()
        watch.look()
        assert one.known(more) is None
    assert [(line["log_level"], line.get("active")) for line in said] == [
        ("info", 0), ("info", 1), ("info", 2), ("error", None), ("error", None), ("info", 1), ("info", 0)]  # fmt: skip
    assert all("keys.json" in line["why"] and "\n" not in line["why"] for line in said if "why" in line)


# ---- what its events may be
def taken(key: Key, body: Any) -> Outcome:
    sending = Sending(event.Receipt(collector_id="c1", protocol="x"), NOW, REGISTRY, LIMITS, key.only_source, key.types)
    form = segment.form(key.source, REGISTRY) if isinstance(body, dict) else cloudevents.FORM
    return accept(*read_batch(json.dumps(body).encode(), form, LIMITS), sending)


def login(**changes: Any) -> dict[str, Any]:
    return {"id": "e", "source": "shop", "type": "login", "subject": "u", "data": {}} | changes


def reasons(outcome: Outcome) -> list[tuple[int, str]]:
    return [(one.index, one.letter.reason) for one in outcome.rejected]


def test_another_source_or_type_is_not_allowed() -> None:
    key, text = made(types=["login", "page_view"])
    of = known(senders(key), text)
    body = [
        login(),
        login(source="bank"),
        login(type="purchase"),
        login(type="page"),
        login(type="none"),
        login(source=""),
        login(type="LOGIN"),
    ]
    outcome = taken(of, body)
    assert len(outcome.messages) == 3
    assert reasons(outcome) == [
        (1, Reason.NOT_ALLOWED), (2, Reason.NOT_ALLOWED), (4, Reason.UNKNOWN_TYPE), (5, Reason.MISSING_ATTRIBUTE)]  # fmt: skip
    assert [one.letter.detail for one in outcome.rejected[:2]] == [
        "source 'bank' is not that of this write key: it may send as 'shop' only",
        "type purchase is none of those of this write key: login, page_view",
    ]
    assert (outcome.rejected[0].letter.source, outcome.rejected[1].letter.type) == ("bank", "purchase")


def test_a_key_without_types_may_send_all_of_the_plan() -> None:
    key, text = made()
    of = known(senders(key), text)
    outcome = taken(of, [login(type=type) for type in REGISTRY.types])
    assert (len(outcome.messages), outcome.rejected) == (len(REGISTRY.types), [])
    assert len(taken(known(senders(), "ready-made"), [login(source=source) for source in ("a", "b")]).messages) == 2


def test_segment_calls_have_the_source_of_the_key() -> None:
    key, text = made(types=["login"])
    call = {"type": "track", "event": "login", "userId": "u", "messageId": "m", "source": "bank", "properties": {}}
    outcome = taken(known(senders(key), text), {"batch": [call, call | {"type": "identify"}]})
    assert event.decode_raw(outcome.messages[0][1]).source == "shop"
    assert reasons(outcome) == [(1, Reason.NOT_ALLOWED)]


# ---- what no client can set
OWNED = ("receipt", "received_at", "enriched_at", "loaded_at", "enrichment", "collector_id", "key_id", "client", "protocol", "user_agent",
         "kafka_offset", "dead_letter_id")  # fmt: skip
RECEIPT = event.Receipt(collector_id="c1", protocol="p", key_id="k", client="hash", user_agent="agent")
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.just("2001-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(OWNED), inner, max_size=3),
    max_leaves=5,
)
forged = st.dictionaries(st.sampled_from(OWNED), anything, min_size=1)
WIRE = msgspec.json.Decoder()


def as_if_unforged(sent: Any, texts: Any, plain: bytes) -> None:
    (message,) = accept(sent, texts, Sending(RECEIPT, NOW, REGISTRY, LIMITS)).messages
    assert message[1] == plain
    assert WIRE.decode(message[1])["receipt"] == msgspec.to_builtins(RECEIPT)


def plain(data: bytes = b"{}") -> bytes:
    told = {
        "id": "e",
        "source": "shop",
        "type": "login",
        "time": NOW,
        "received_at": NOW,
        "dataschema": "login/1-0-0",
        "data": msgspec.Raw(data),
    }
    return msgspec.json.encode(told | {"receipt": RECEIPT, "subject": "u"})


@given(forged)
def test_cloudevents_cannot_set_what_the_server_owns(forged: dict[str, Any]) -> None:
    body = json.dumps(forged | login()).encode()
    as_if_unforged(*read_one(body, cloudevents.FORM, LIMITS), plain())
    as_if_unforged(*read_batch(b"[" + body + b"]", cloudevents.FORM, LIMITS), plain())
    headers = {f"ce-{name}": str(value) for name, value in (forged | login()).items() if name != "data"}
    as_if_unforged(*cloudevents.read_binary(b"{}", headers | {name: str(value) for name, value in forged.items()}, LIMITS), plain())


@given(forged)
def test_segment_calls_cannot_set_what_the_server_owns(forged: dict[str, Any]) -> None:
    call = {"type": "track", "event": "login", "userId": "u", "messageId": "e", "properties": {}, "context": forged, "integrations": forged}
    body = json.dumps(forged | {"source": "bank", "id": "x", "time": "x", "receipt": forged} | call).encode()
    as_if_unforged(*read_one(body, segment.form("shop", REGISTRY, "track"), LIMITS), plain())
    batch = json.dumps(forged).encode()[:-1] + b',"batch":[' + body + b"]}"
    as_if_unforged(*read_batch(batch, segment.form("shop", REGISTRY), LIMITS), plain())


@given(st.lists(st.tuples(st.integers(100, 10_000), st.binary(max_size=20)), max_size=5), forged)
def test_grpc_events_cannot_set_what_the_server_owns(unknown: list[tuple[int, bytes]], forged: dict[str, Any]) -> None:
    """Neither by fields that the message does not have, nor by members of data, which stay where they are."""
    data = json.dumps(forged).encode()
    message = pb.Event(id="e", source="shop", type="login", subject="u", json=data).SerializeToString()
    for number, value in unknown:
        message += varint(number << 3 | 2) + varint(len(value)) + value
    as_if_unforged([event_of(pb.Event.FromString(message), LIMITS.event_bytes, MESSAGES)], lambda: [message], plain(data))


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


# ---- the client's address
def test_an_address_has_one_pseudonym_by_every_way() -> None:
    one, key = KNOWN, known(KNOWN, "ready-made")

    def client(protocol: str, address: str | None) -> str | None:
        return one.receipt(protocol, key, address, None).client

    assert client("segment", "192.0.2.7") == client("grpc", "192.0.2.7") == client("grpc", "::ffff:192.0.2.7")
    assert client("grpc", None) is client("grpc", "") is None
    addresses = [f"192.0.2.{n}" for n in range(256)] + [f"2001:db8::{n:x}" for n in range(256)]
    pseudonyms = {client("grpc", address) for address in addresses}
    assert len(pseudonyms) == 512
    assert all(name is not None and len(name) == 32 and not set(name) - set("0123456789abcdef") for name in pseudonyms)


@given(st.text(max_size=20) | st.text(st.characters(max_codepoint=0xA0), max_size=20), st.integers(0, 2**32 - 1))
def test_a_receipt_holds_neither_address_nor_control_characters(agent: str, number: int) -> None:
    address = ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
    receipt = KNOWN.receipt("segment", known(KNOWN, "ready-made"), address, agent)
    written = msgspec.json.encode(receipt)
    assert address not in (receipt.client or "")
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in receipt.user_agent or "")
    assert msgspec.json.decode(written, type=event.Receipt) == receipt
