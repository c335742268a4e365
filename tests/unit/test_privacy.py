"""Fields that identify a person: where the plan may mark them, and what becomes of them."""

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from headrace.privacy import masked, pads, problems, pseudonym, tree
from headrace.registry import Registry

ROOT = Path(__file__).parents[2]
SCHEMA = {
    "type": "object",
    "properties": {
        "email": {"type": ["string", "null"]},
        "born": {"type": "string", "format": "date"},
        "home": {"$ref": "#/$defs/address"},
        "orders": {"type": "array", "items": {"type": "object", "properties": {"to": {"$ref": "#/$defs/address"}}}},
        "phones": {"type": "array", "items": {"type": "string"}},
        "extra": {"type": "object"},
        "a/b": {"type": "string"},
        "any": True,
    },
    "$defs": {"address": {"type": "object", "properties": {"street": {"type": "string"}, "number": {"type": "integer"}}}},
}


def told(**marks: str) -> list[str]:
    return problems({place.replace("__", "/").replace("each", "*"): action for place, action in marks.items()}, [SCHEMA], ["repurchase"])


def test_what_the_schema_has_may_be_marked() -> None:
    marks = {"subject": "hash", "data/email": "hash", "data/born": "drop", "data/home/street": "hash", "data/orders/*/to/street": "hash"}
    marks |= {"data/phones/*": "hash", "data/extra/anything": "hash", "data/a~1b": "hash", "enrichment/repurchase/score": "drop"}
    assert problems(marks, [SCHEMA], ["repurchase"]) == []


@pytest.mark.parametrize(
    ("marks", "sentence"),
    [
        ({"data__home__flat": "drop"}, "pii data/home/flat: no version has such a property"),
        ({"data__email__x": "drop"}, "pii data/email/x: no version has such a property"),
        ({"data__home__number": "hash"}, "pii data/home/number: only text can be hashed, and it is integer: say drop"),
        ({"data__any": "hash"}, "pii data/any: only text can be hashed, and it is anything: say drop"),
        ({"data__born": "hash"}, "pii data/born: only text can be hashed, and it is a date: say drop"),
        ({"data__email": "mask"}, "pii data/email: 'mask' is no action: say hash or drop"),
        (
            {"data__home": "drop", "data__home__street": "hash"},
            "pii data/home/street: data/home holds it and is marked itself: keep one of them",
        ),
        ({"enrichment__score": "drop"}, "pii enrichment/score: no enrichment 'score' is asked for"),
    ],
)
def test_a_mark_that_cannot_be_is_a_sentence(marks: dict[str, str], sentence: str) -> None:
    assert told(**marks) == [sentence]


@pytest.mark.parametrize("place", ["data", "email", "subject/x", "", "enrichment"])
def test_a_place_begins_with_what_an_event_has(place: str) -> None:
    [problem] = problems({place: "drop"}, [SCHEMA], [])
    assert "a place is subject, data/PROPERTY" in problem


def test_a_property_of_one_version_is_enough() -> None:
    assert problems({"data/email": "hash"}, [{"type": "object", "properties": {"x": {}}}, SCHEMA], []) == []


DATA = {
    "email": "a@b.c",
    "name": "Ann",
    "n": 1.50,
    "home": {"street": "S", "number": 1},
    "orders": [{"to": "x", "n": 1}, None],
    "phones": ["1", 2],
}
MARKS = {"data/email": "hash", "data/name": "drop", "data/home/street": "drop", "data/orders/*/to": "hash", "data/phones/*": "hash"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            DATA,
            {
                "email": pseudonym("k", "a@b.c"),
                "n": 1.5,
                "home": {"number": 1},
                "orders": [{"to": pseudonym("k", "x"), "n": 1}, None],
                "phones": [pseudonym("k", "1"), None],
            },
        ),
        ({"email": None, "name": None, "home": "text", "orders": {"to": "x"}}, {"email": None, "home": "text", "orders": {"to": "x"}}),
        ({"email": {"secret": 1}}, {"email": None}),
        ({}, {}),
    ],
)  # fmt: skip
def test_what_is_marked_is_hashed_or_gone_and_nothing_else_changes(value: Any, expected: Any) -> None:
    assert masked(value, tree(MARKS)["data"], "k") == expected


@pytest.mark.parametrize("key", ["k", "x" * 64, "long" * 30, "schlüssel"])
def test_a_pseudonym_is_an_hmac_also_where_there_is_only_sha256(key: str) -> None:
    expected = hmac.new(key.encode(), "grün".encode(), "sha256").hexdigest()
    assert pseudonym(key, "grün") == expected
    inner, outer = pads(key)
    assert hashlib.sha256(outer + hashlib.sha256(inner + "grün".encode()).digest()).hexdigest() == expected


def test_the_plan_of_this_checkout_names_nobody() -> None:
    identify = Registry.load(ROOT / "schemas").types["identify"]
    assert identify.marks == {"data": {"email": "hash", "name": "drop"}}
