"""Index templates and documents."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent, Receipt
from headrace.privacy import pseudonym, tree
from headrace.registry import EventType, Registry
from loaders.realtime.mapping import (
    STARTERS,
    Marks,
    bare_dead_letter_document,
    dead_letter_document,
    event_document,
    templates,
)

PLAN = templates(Registry.load(Path(__file__).parents[2] / "schemas"))


def registry(**schemas: dict[str, Any]) -> Registry:
    """A plan of one event type `thing` with these versions of its properties."""
    of = {f"thing/{ref.strip('_').replace('_', '-')}": {"type": "object", "properties": found} for ref, found in schemas.items()}
    return Registry({"thing": EventType(version="1-0-0", owner="o", purpose="p")}, of)


def data_fields(**schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = templates(registry(**schemas))["headrace-events-thing"]["template"]["mappings"]["properties"]["data"]
    assert found["dynamic"] is False
    properties: dict[str, Any] = found["properties"]
    return properties


def kinds(**schemas: dict[str, Any]) -> dict[str, str]:
    return {name: "stored" if field.get("enabled") is False else field["type"] for name, field in data_fields(**schemas).items()}


def test_every_type_of_the_plan_has_a_template_that_is_more_specific_than_the_general_one() -> None:
    purchase, general = PLAN["headrace-events-purchase"], PLAN["headrace-events"]
    assert (purchase["index_patterns"], general["index_patterns"]) == (["events-purchase-*"], ["events-*"])
    assert purchase["priority"] > general["priority"]
    data = purchase["template"]["mappings"]["properties"]["data"]["properties"]
    assert (data["quantity"]["type"], data["amount_usd"]["type"], data["order_id"]["type"]) == ("long", "double", "keyword")
    assert data["products"]["properties"]["price_usd"] == {"type": "double"}
    assert PLAN["headrace-dead-letters"]["index_patterns"] == ["dead-letters-*"]
    assert STARTERS == ("events-starter", "dead-letters-starter")


def test_trino_sees_the_same_columns_in_every_index_of_an_alias() -> None:
    events = [template for name, template in PLAN.items() if name.startswith("headrace-events")]
    for template in events:
        mappings = template["template"]["mappings"]
        assert template["template"]["aliases"] == {"events_all": {}}
        assert mappings["_meta"]["trino"] == {"data": {"asRawJson": True}, "enrichment": {"asRawJson": True}}
        flat = {name: field for name, field in mappings["properties"].items() if name not in ("data", "enrichment")}
        assert flat == {name: field for name, field in events[0]["template"]["mappings"]["properties"].items() if name in flat}
        assert all(field["type"] in ("keyword", "date") for field in flat.values())
        assert mappings["properties"]["data"]["properties"]  # an object without properties is no column
        enrichment = mappings["properties"]["enrichment"]["properties"]
        assert enrichment["repurchase"]["properties"]["score"] == {"type": "double"}
        assert enrichment["enrichment_skipped"]["properties"]["repurchase"]["type"] == "keyword"


def test_kinds_of_json_schema() -> None:
    properties: dict[str, Any] = {
        "text": {"type": "string"},
        "day": {"type": "string", "format": "date"},
        "whole": {"type": "integer"},
        "number": {"type": ["number", "null"]},
        "flag": {"type": "boolean"},
        "list": {"type": "array", "items": {"type": "string"}},
        "objects": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "integer"}}}},
        "free": {"type": "object"},
        "any": {},
        "all": True,
        "either": {"type": ["string", "integer"]},
        "a.path": {"type": "string"},
        "": {"type": "string"},
    }
    assert kinds(_1_0_0=properties) == {
        "text": "keyword",
        "day": "date",
        "whole": "long",
        "number": "double",
        "flag": "boolean",
        "list": "keyword",
        "objects": "object",
        "free": "stored",
        "any": "stored",
        "all": "stored",
        "either": "stored",
    }


def test_versions_of_a_type_share_one_mapping() -> None:
    text, whole, number = {"type": "string"}, {"type": "integer"}, {"type": "number"}
    assert kinds(_1_0_0={"a": text, "b": whole, "c": whole}, _2_0_0={"a": text, "b": number, "c": text, "d": text}) == {
        "a": "keyword",
        "b": "double",
        "c": "stored",
        "d": "keyword",
    }


def enriched(**changed: Any) -> EnrichedEvent:
    values: dict[str, Any] = {
        "id": "1",
        "source": "s",
        "type": "purchase",
        "time": "2026-01-30T12:00:00.000Z",
        "received_at": "2026-01-31T12:00:01.000Z",
        "enriched_at": "2026-02-01T00:00:00.000Z",
        "dataschema": "purchase/1-0-0",
        "data": msgspec.Raw(b'{"amount_usd": 1.50}'),
        "enrichment": msgspec.Raw(b'{"repurchase":{"score":0.5}}'),
        "receipt": Receipt(collector_id="c", protocol="grpc"),
    }
    return EnrichedEvent(**(values | changed))


def test_an_event_is_a_flat_document_in_the_index_of_its_type_and_day() -> None:
    document = event_document(enriched(subject="u"))
    assert document.index == "events-purchase-2026.01.31"
    assert document.id == hashlib.sha256(b"s\x1f1").hexdigest()
    assert b'"data":{"amount_usd": 1.50}' in document.source
    assert json.loads(document.source) == {
        "id": "1",
        "source": "s",
        "type": "purchase",
        "subject": "u",
        "time": "2026-01-30T12:00:00.000Z",
        "received_at": "2026-01-31T12:00:01.000Z",
        "enriched_at": "2026-02-01T00:00:00.000Z",
        "dataschema": "purchase/1-0-0",
        "data": {"amount_usd": 1.5},
        "enrichment": {"repurchase": {"score": 0.5}},
        "collector_id": "c",
        "protocol": "grpc",
    }


def test_what_identifies_a_person_is_hashed_or_left_out() -> None:
    marks = Marks({"identify": tree({"subject": "hash", "data/email": "hash", "data/name": "drop"}), "purchase": {}}, "key")
    data = msgspec.Raw(b'{"email": "a@b.c", "name": "Ann", "big": 123456789012345678901234567890}')
    document = event_document(enriched(type="identify", subject="u", data=data, enrichment=msgspec.Raw(b"{}")), marks)
    said = json.loads(document.source)
    assert said["subject"] == pseudonym("key", "u")
    assert said["data"] == {"email": pseudonym("key", "a@b.c"), "big": 123456789012345678901234567890}
    assert document.id == event_document(enriched()).id
    nobody = event_document(enriched(type="identify", data=data), marks)
    assert "subject" not in json.loads(nobody.source)
    assert event_document(enriched(subject="u"), marks) == event_document(enriched(subject="u"))


def test_every_field_of_a_document_is_mapped() -> None:
    receipt = Receipt(collector_id="c", protocol="grpc", key_id="k", client="h", user_agent="a")
    document = json.loads(event_document(enriched(subject="u", receipt=receipt)).source)
    assert set(document) == set(PLAN["headrace-events"]["template"]["mappings"]["properties"])
    letter = dict.fromkeys(DeadLetter.__struct_fields__, "x")
    assert set(letter) == set(PLAN["headrace-dead-letters"]["template"]["mappings"]["properties"])


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of))


@given(JSON, st.text(), st.text(), st.sampled_from([None, 1, "\t"]))
def test_a_document_is_one_line_and_says_the_same(data: object, id: str, source: str, indent: int | str | None) -> None:
    text = msgspec.Raw(json.dumps(data, indent=indent).encode())
    document = event_document(enriched(id=id, source=source, data=text))
    assert b"\n" not in document.source
    said = json.loads(document.source)
    assert (said["id"], said["source"], said["data"]) == (id, source, data)
    assert document.id == event_document(enriched(id=id, source=source)).id  # content does not matter


@given(st.binary(max_size=200))
def test_every_dead_letter_has_a_document(payload: bytes) -> None:
    text, encoding = dead_letter.text_of(payload)
    letter = DeadLetter(
        dead_letter_id="d", service="s", reason=Reason.UNPARSEABLE, detail="w", rejected_at="2026-01-31T00:00:00Z", payload=text,
        payload_encoding=encoding,
    )  # fmt: skip
    document = dead_letter_document(letter)
    assert (document.index, document.id) == ("dead-letters-2026.01.31", "d")
    assert dead_letter.decode(document.source).payload_bytes() == payload
    assert json.loads(bare_dead_letter_document(letter, "why" * 1000).source) == {
        "dead_letter_id": "d",
        "service": "s",
        "reason": "unparseable",
        "rejected_at": "2026-01-31T00:00:00Z",
        "detail": f"Elasticsearch takes no more of it ({'why' * 100}); the whole is in the lake",
    }


@given(st.datetimes(timezones=st.just(UTC)))
def test_our_moments_are_moments(moment: datetime) -> None:
    assert event.is_utc(event.rfc3339(moment))


@pytest.mark.parametrize("text", ["", "Z", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01T00:00:60Z", "2026-01-01 00:00:00Z", "x" * 30])
def test_other_text_is_no_moment(text: str) -> None:
    assert not event.is_utc(text)
