"""Data as protobuf messages: what JSON they become, and that each mistake in a .proto is told in a sentence."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import any_pb2, json_format, message_factory
from hypothesis import given
from hypothesis import strategies as st

from headrace.dead_letter import Invalid, Reason
from headrace.protobuf import Messages
from headrace.registry import PlanError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": ["integer", "null"]},
        "price": {"type": "number"},
        "yes": {"type": "boolean"},
        "raw": {"type": "string", "contentEncoding": "base64"},
        "method": {"type": "string", "enum": ["password", "sso"]},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object"},
        "any": {},
    },
    "$defs": {"item": {"type": "object", "properties": {"id": {"type": "string"}, "inner": {"$ref": "#/$defs/item"}}}},
}
PROTO = """
syntax = "proto3";
package headrace.schemas.visit.v1_0_0;
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
message Visit {
  optional string text = 1;
  optional int64 count = 2;
  optional double price = 3;
  optional bool yes = 4;
  optional bytes raw = 5;
  optional Method method = 6;
  google.protobuf.Timestamp at = 7;
  repeated string tags = 8;
  repeated Item items = 9;
  map<string, uint64> labels = 10;
  google.protobuf.Struct free = 11;
  google.protobuf.Value any = 12;
  message Item { optional string id = 1; Item inner = 2; }
  enum Method { METHOD_UNSPECIFIED = 0; password = 1; sso = 2; }
}
"""
NAME = "headrace.schemas.visit.v1_0_0.Visit"
URL = f"type.googleapis.com/{NAME}"


def load(folder: Path, proto: str = PROTO, ref: str = "visit/1-0-0", schema: dict[str, Any] = SCHEMA) -> Messages:
    path = folder / f"{ref}.proto"
    path.parent.mkdir(exist_ok=True)
    path.write_text(proto)
    return Messages.load(folder, {"visit/1-0-0": schema})


@pytest.fixture
def messages(tmp_path: Path) -> Messages:
    return load(tmp_path)


def read(messages: Messages, **members: Any) -> Any:
    kind = message_factory.GetMessageClass(messages.pool.FindMessageTypeByName(NAME))
    ref, data = messages.read(URL, json_format.ParseDict(members, kind()).SerializeToString())
    assert ref == "visit/1-0-0"
    return orjson.loads(data)


@pytest.mark.parametrize(
    ("members", "data"),
    [
        ({}, {}),
        ({"text": "", "count": 0, "price": 0, "yes": False}, {"text": "", "count": 0, "price": 0.0, "yes": False}),
        ({"count": str(-(2**63)), "labels": {"a": str(2**64 - 1), "": 1}}, {"count": -(2**63), "labels": {"a": 2**64 - 1, "": 1}}),
        ({"raw": "/+8="}, {"raw": "/+8="}),
        ({"method": "sso"}, {"method": "sso"}),
        ({"method": 0}, {"method": "METHOD_UNSPECIFIED"}),
        ({"method": 7}, {"method": 7}),
        ({"at": "2026-01-31T13:00:00.5+01:00"}, {"at": "2026-01-31T12:00:00.500Z"}),
        ({"tags": ["a", ""]}, {"tags": ["a", ""]}),
        ({"items": [{}, {"id": "x", "inner": {"id": "y"}}]}, {"items": [{}, {"id": "x", "inner": {"id": "y"}}]}),
        ({"free": {"a": [1, None, {"b": 1.5}]}, "any": "x"}, {"free": {"a": [1, None, {"b": 1.5}]}, "any": "x"}),
        ({"price": "NaN"}, {"price": "NaN"}),
        ({"price": "-Infinity"}, {"price": "-Infinity"}),
    ],
)  # fmt: skip
def test_a_message_is_the_json_that_its_schema_describes(messages: Messages, members: dict[str, Any], data: dict[str, Any]) -> None:
    assert read(messages, **members) == data


def test_as_any_packs_it(messages: Messages) -> None:
    packed = any_pb2.Any()
    kind = message_factory.GetMessageClass(messages.pool.FindMessageTypeByName(NAME))
    packed.Pack(kind(text="é"))
    assert messages.read(packed.type_url, packed.value) == ("visit/1-0-0", '{"text":"é"}'.encode())
    assert messages.read(NAME, packed.value)[0] == "visit/1-0-0"


@pytest.mark.parametrize(
    ("type_url", "value", "reason", "says"),
    [
        ("", b"", Reason.UNKNOWN_SCHEMA, NAME),
        ("type.googleapis.com/google.protobuf.Timestamp", b"", Reason.UNKNOWN_SCHEMA, "google.protobuf.Timestamp"),
        (URL, b"\x0a", Reason.UNPARSEABLE, NAME),
        (URL, b"\x0a\x02\xff\xff", Reason.UNPARSEABLE, NAME),
        (URL, b"\xa0\x01\x01", Reason.MALFORMED, "a new version"),
        (URL, b"\x4a\x04\xa2\x01\x01x", Reason.MALFORMED, "a new version"),
        (URL, b"\x3a\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", Reason.MALFORMED, "JSON"),
        (URL, b"\x62\x09\x11" + b"\0" * 6 + b"\xf8\x7f", Reason.MALFORMED, "JSON"),
    ],
    ids=["no type", "another type", "cut off", "no UTF-8", "unknown field", "unknown field inside", "no moment", "NaN in a Value"],
)
def test_what_is_refused(messages: Messages, type_url: str, value: bytes, reason: Reason, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        messages.read(type_url, value)
    assert caught.value.reason == reason
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("= 1;", "= 1", 'visit/1-0-0.proto:'),
        ("visit.v1_0_0", "visits.v1", "visit/1-0-0.proto: write `package headrace.schemas.visit.v1_0_0;`"),
        ("message Visit", "message Other {}\nmessage Visit", "it has 2 messages"),
        ("optional string text", "string text", "Visit.text: write `optional`"),
        ("optional string text", "optional int32 text", "Visit.text: this is integer, the JSON Schema wants string"),
        ("optional string text", "repeated string text", "Visit.text: a repeated field is an array"),
        ("optional string text", "map<string, string> text", "Visit.text: a map is an object"),
        ("optional string text", "google.protobuf.Value text", "Visit.text: google.protobuf.Value is anything"),
        ("optional string text = 1;", "", "Visit: the JSON Schema has a property 'text'"),
        ("string text = 1;", "string words = 1;", "Visit.words: the JSON Schema has no such property"),
        ("int64 count", "string count", "Visit.count: this is string"),
        ("double price", "float price", "Visit.price: use double"),
        ("repeated string tags", "repeated bool tags", "Visit.tags: this is boolean, the JSON Schema wants string"),
        ("repeated string tags", "optional string tags", "Visit.tags: this is string, the JSON Schema wants array"),
        ("string id = 1", "string key = 1", "Visit.items.key: the JSON Schema has no such property"),
        ("string, uint64", "string, string", "Visit.labels: this is string, the JSON Schema wants integer"),
        ("string, uint64", "int32, uint64", "Visit.labels: the keys of a JSON object are strings"),
        ("sso = 2", "token = 2", "Visit.method: the values are password, token, those of the JSON Schema password, sso"),
        ("google.protobuf.Timestamp at", "google.protobuf.Struct at", "Visit.at: this is object"),
        ("google.protobuf.Struct free", "google.protobuf.NullValue free", "Visit.free"),
    ],
)  # fmt: skip
def test_each_mistake_is_a_sentence(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in PROTO
    with pytest.raises(PlanError) as caught:
        load(tmp_path, PROTO.replace(old, new, 1))
    assert any(says in problem for problem in caught.value.problems), caught.value.problems
    assert all(str(tmp_path) in problem for problem in caught.value.problems)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    return load(tmp_path_factory.mktemp("schemas"))


@given(st.binary(max_size=100) | st.binary(max_size=12).map(lambda inner: b"\x4a" + bytes([len(inner)]) + inner))
def test_any_bytes_are_json_or_refused(shared: Messages, value: bytes) -> None:
    try:
        _, data = shared.read(URL, value)
    except Invalid:
        return
    assert isinstance(orjson.loads(data), dict)


def test_items_inside_items_inside_items(shared: Messages) -> None:
    value = b""
    for _ in range(90):
        value = b"\x12" + _length(value) + value
    assert shared.read(URL, b"\x4a" + _length(value) + value)[1].count(b'"inner"') == 90
    for _ in range(20):  # more than a hundred are too much for protobuf itself; `accept` takes 32
        value = b"\x12" + _length(value) + value
    with pytest.raises(Invalid):
        shared.read(URL, b"\x4a" + _length(value) + value)


def _length(value: bytes) -> bytes:
    return bytes([len(value)]) if len(value) < 128 else bytes([len(value) & 127 | 128, len(value) >> 7])


def test_a_proto_needs_its_schema(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"visit/1-0-1\.proto: there is no 1-0-1\.json beside it"):
        load(tmp_path, ref="visit/1-0-1")


def test_there_need_be_none(tmp_path: Path) -> None:
    messages = Messages.load(tmp_path, {"visit/1-0-0": SCHEMA})
    with pytest.raises(Invalid, match="known: none"):
        messages.read(URL, b"")


def test_what_a_service_serves_is_described_too(messages: Messages) -> None:
    from collector.v1 import collector_pb2

    messages.serve(collector_pb2.DESCRIPTOR, collector_pb2.DESCRIPTOR)
    assert messages.pool.FindMessageTypeByName("headrace.collector.v1.PublishRequest").fields_by_name["events"].number == 1
