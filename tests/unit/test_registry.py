"""The tracking plan: what it says of events, and that each mistake in it is told in a sentence."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.dead_letter import Invalid, Reason
from headrace.registry import PlanError, Registry

PLAN = """
events:
  purchase: {version: 1-0-0, owner: shop, purpose: Sales., aliases: [Order Completed], pii: {data/email: hash}}
  page_view: {version: 1-0-1, owner: web, purpose: Views., aliases: [page]}
"""
SCHEMA = {
    "type": "object",
    "properties": {
        "email": {"type": "string"},
        "amount": {"type": "number", "minimum": 0},
        "at": {"type": "string", "format": "date-time"},
    },
    "required": ["amount"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tracking_plan.yaml").write_text(PLAN)
    for ref in ("purchase/1-0-0", "page_view/1-0-0", "page_view/1-0-1"):
        write(tmp_path, ref, json.dumps(SCHEMA))
    return tmp_path


def write(folder: Path, ref: str, text: str) -> None:
    path = folder / f"{ref}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def plan(old: str, new: str) -> Callable[[Path], object]:
    assert old in PLAN
    return lambda folder: (folder / "tracking_plan.yaml").write_text(PLAN.replace(old, new, 1))


def schema(text: str | dict[str, Any], ref: str = "purchase/1-0-0") -> Callable[[Path], None]:
    return lambda folder: write(folder, ref, text if isinstance(text, str) else json.dumps(text))


def test_names_and_aliases_in_any_case(folder: Path) -> None:
    registry = Registry.load(folder)
    assert [registry.type_named(name) for name in ("purchase", "PURCHASE", "order completed", "Page", "nope", "")] == [
        "purchase", "purchase", "purchase", "page_view", None, None,
    ]  # fmt: skip


def test_schema_refs(folder: Path) -> None:
    registry = Registry.load(folder)
    assert registry.schema_ref("page_view") == "page_view/1-0-1"
    assert registry.schema_ref("page_view", "page_view/1-0-0") == "page_view/1-0-0"
    for asked in ("page_view/2-0-0", "purchase/1-0-0", "", "x" * 5_000):
        with pytest.raises(Invalid) as refused:
            registry.schema_ref("page_view", asked)
        assert refused.value.reason is Reason.UNKNOWN_SCHEMA
        assert refused.value.detail.endswith("is not a schema of page_view; known: page_view/1-0-0, page_view/1-0-1")
        assert len(refused.value.detail) < 300


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b'{"amount": 1}', None, ""),
        (b'{"amount": 1, "at": "2026-01-31T12:00:00Z"}', None, ""),
        (b'{"amount": -1}', Reason.SCHEMA_INVALID, "data/amount: -1 is less than the minimum of 0 (purchase/1-0-0)"),
        (b"{}", Reason.SCHEMA_INVALID, 'data: "amount" is a required property (purchase/1-0-0)'),
        (b'{"amount": 1, "at": "yesterday"}', Reason.SCHEMA_INVALID, 'data/at: "yesterday" is not a "date-time" (purchase/1-0-0)'),
        (b"[1]", Reason.SCHEMA_INVALID, 'data: [1] is not of type "object" (purchase/1-0-0)'),
        (b"", Reason.UNPARSEABLE, "data is not JSON: "),
        (b"\xff", Reason.UNPARSEABLE, "data is not JSON: "),
        (b'{"amount": 1e999}', Reason.UNPARSEABLE, "data is not JSON: "),
        (b'{"amount": NaN}', Reason.UNPARSEABLE, "data is not JSON: "),
        (b'{"amount":' + b"[" * 300 + b"]" * 300 + b"}", Reason.SCHEMA_INVALID, "data is nested too deeply to be checked: "),
        (b'{"amount":' + b"[" * 5000 + b"]" * 5000 + b"}", Reason.UNPARSEABLE, "data is not JSON: "),
    ],
)
def test_validate(folder: Path, data: bytes, reason: Reason | None, detail: str) -> None:
    registry = Registry.load(folder)
    if reason is None:
        registry.validate("purchase/1-0-0", data)
        return
    with pytest.raises(Invalid) as refused:
        registry.validate("purchase/1-0-0", data)
    assert refused.value.reason is reason
    assert refused.value.detail.startswith(detail)


def test_validate_knows_its_schemas(folder: Path) -> None:
    with pytest.raises(Invalid, match=r"'purchase/9-0-0' is not in the tracking plan"):
        Registry.load(folder).validate("purchase/9-0-0", b"{}")


def test_a_detail_stays_short_and_says_what_is_wrong(folder: Path) -> None:
    with pytest.raises(Invalid) as refused:
        Registry.load(folder).validate("purchase/1-0-0", json.dumps({"amount": "x" * 10_000}).encode())
    assert len(refused.value.detail) < 400
    assert refused.value.detail.endswith('xxx" is not of type "number" (purchase/1-0-0)')


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", {}),
        (", enrich: [a, b]", {"a": "optional", "b": "optional"}),
        (", enrich: {a: required, b: optional}", {"a": "required", "b": "optional"}),
    ],
)
def test_an_enrichment_is_optional_unless_it_is_said_to_be_required(folder: Path, said: str, meant: dict[str, str]) -> None:
    plan("owner: shop", f"owner: shop{said}")(folder)
    assert Registry.load(folder).types["purchase"].enrichments == meant


TWICE = "  purchase: {version: 1-0-0, owner: shop, purpose: Again.}\n  page_view"
REMOTE = {"type": "object", "properties": {"a": {"$ref": "https://schemas.example/a.json"}}}


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (lambda f: (f / "tracking_plan.yaml").unlink(), r"No such file or directory: every platform needs a tracking plan there"),
        (plan("events:", "events: ["), r"tracking_plan\.yaml: while parsing"),
        (plan("events:", "event:"), r"Object contains unknown field `event`"),
        (plan("owner: shop, ", ""), r"missing required field `owner` - at `\$\.events"),
        (plan("owner: shop", "owner: shop, colour: red"), r"unknown field `colour`"),
        (plan("  page_view", TWICE), r"'purchase' stands here twice"),
        (plan("owner: shop", "owner: ' '"), r"purchase: owner is empty"),
        (plan("  purchase:", "  Purchase Made:"), r"event type 'Purchase Made': use lower-case letters, digits and _"),
        (plan("  purchase:", "  events:"), r"event type 'events': that name is Headrace's own: choose another"),
        (plan("version: 1-0-0", "version: v1"), r"purchase: version 'v1' is not MODEL-REVISION-ADDITION, such as 1-0-0"),
        (plan("version: 1-0-0", "version: 2-0-0"), r"purchase: there is no .*purchase/2-0-0\.json: write that schema"),
        (plan("data/email: hash", "data/phone: hash"), r"purchase: pii data/phone: no version has such a property"),
        (plan("data/email: hash", "data/email: mask"), r"purchase: pii data/email: 'mask' is no action: say hash or drop"),
        (plan("data/email: hash", "data/amount: hash"), r"purchase: pii data/amount: only text can be hashed, and it is number: say drop"),
        (plan("data/email: hash", "data/at: hash"), r"only text can be hashed, and it is a date-time: say drop"),
        (plan("data/email: hash", "email: hash"), r"purchase: pii email: a place is subject, data/PROPERTY"),
        (plan("data/email: hash", "enrichment/score: drop"), r"purchase: pii enrichment/score: no enrichment 'score' is asked for"),
        (plan("data/email: hash", "subject: hash"), r"page_view: purchase has pii subject: hash, and here it is not marked: hash or drop"),
        (plan("{data/email: hash}", "[email]"), r"Expected `object`, got `array` - at `\$\.events"),
        (plan("owner: shop", "owner: shop, enrich: {score: perhaps}"), r"Invalid enum value 'perhaps' - at `\$\.events"),
        (plan("owner: shop", "owner: shop, enrich: [Score]"), r"purchase: enrichment 'Score': use lower-case letters, digits and _"),
        (plan("owner: shop", "owner: shop, enrich: [enrichment_skipped]"), r"purchase: enrichment 'enrichment_skipped': .* and not"),
        (plan("aliases: [page]", "aliases: [Purchase]"), r"'Purchase' stands for both purchase and page_view: give it to one of them"),
        (schema(SCHEMA, "refund/1-0-0"), r"refund: there are schemas but tracking_plan\.yaml has no event type 'refund'"),
        (schema(SCHEMA, "purchase/v2"), r"purchase/v2\.json: name it MODEL-REVISION-ADDITION\.json, such as 1-0-0\.json"),
        (schema("{"), r"purchase/1-0-0\.json: not JSON: "),
        (schema("[]"), r'purchase/1-0-0\.json: a schema of data is an object with "type": "object" and "properties"'),
        (schema({"type": "object", "properties": {"a": {"type": "text"}}}), r"not a JSON Schema \(2020-12\): 'text' is not valid"),
        (schema({"type": "object", "properties": {"a": {"pattern": "("}}}), r"not a JSON Schema \(2020-12\): .*regex"),
        (
            schema({"type": "object", "properties": {"a": {"$ref": "#/nope"}}}),
            r"not a JSON Schema \(2020-12\): Pointer '/nope' does not exist",
        ),
        (schema(REMOTE), r"\$ref to https://schemas\.example/a\.json: a schema may refer only to itself"),
    ],
)
def test_each_mistake_is_a_sentence(folder: Path, mistake: Callable[[Path], object], sentence: str) -> None:
    mistake(folder)
    with pytest.raises(PlanError) as told:
        Registry.load(folder)
    assert [problem for problem in told.value.problems if re.search(sentence, problem)], told.value.problems
    assert all("\n" not in problem and str(folder) in problem for problem in told.value.problems)


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    plan("data/email: hash", "data/phone: hash")(folder)
    schema(SCHEMA, "refund/1-0-0")(folder)
    schema("{", "page_view/1-0-0")(folder)
    with pytest.raises(PlanError) as told:
        Registry.load(folder)
    assert len(told.value.problems) == 3
