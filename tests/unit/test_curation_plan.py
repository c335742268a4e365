"""From JSON Schemas to the columns of silver."""

import json
from pathlib import Path
from typing import Any

import pytest

from dags.curation.plan import ATTRIBUTES, PlanError, ddl, parse_ddl, read_marks, read_plan, table, tables

ROOT = Path(__file__).parents[2]


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def columns(*versions: tuple[str, dict[str, Any]]) -> dict[str, str]:
    return {c.column: ddl(c.type) for c in table("order", {f"order/{version}": of for version, of in versions}).columns}


@pytest.mark.parametrize(
    ("of", "expected", "read_as"),
    [
        ({"type": "string"}, "string", "string"),
        ({"type": "string", "format": "date-time"}, "timestamp", "string"),
        ({"type": "string", "format": "date"}, "date", "string"),
        ({"type": "string", "format": "uuid"}, "string", "string"),
        ({"type": "integer"}, "bigint", "decimal(37, 18)"),
        ({"type": ["integer", "null"]}, "bigint", "decimal(37, 18)"),
        ({"type": "number"}, "double", "double"),
        ({"type": "boolean"}, "boolean", "boolean"),
        ({"type": ["integer", "string"]}, "string", "string"),
        ({"enum": ["a", 1]}, "string", "string"),
        (True, "string", "string"),
        ({"type": "object"}, "string", "string"),
        ({"type": "array"}, "string", "string"),
        ({"type": "array", "items": {"type": "integer"}}, "array<bigint>", "array<decimal(37, 18)>"),
        ({"$ref": "#/$defs/money"}, "double", "double"),
        ({"$ref": "https://example.com/other"}, "string", "string"),
        (schema(City=True, n=schema(x={"type": "integer"})), "struct<`city`: string, `n`: struct<`x`: bigint>>", None),
        (schema(City={"type": "integer"}), "struct<`city`: bigint>", "struct<`City`: decimal(37, 18)>"),
    ],
)
def test_a_property_becomes_a_column(of: Any, expected: str, read_as: str | None) -> None:
    made = table("order", {"order/1-0-0": schema(it=of) | {"$defs": {"money": {"type": "number"}}}}).columns[0].type
    assert ddl(made) == expected
    assert read_as is None or parse_ddl(made) == read_as


def test_a_schema_that_refers_to_itself_ends_as_text() -> None:
    node = schema(value={"type": "integer"}, next={"$ref": "#/$defs/node"})
    assert columns(("1-0-0", schema(first={"$ref": "#/$defs/node"}) | {"$defs": {"node": node}})) == {
        "first": "struct<`value`: bigint, `next`: string>"
    }


def test_names_of_columns_are_lower_case_and_their_own() -> None:
    made = table("order", {"order/1-0-0": schema(id=True, Time=True, userId=True, userid=True, **{"utm.source": True})}).columns
    assert [(c.property, c.column) for c in made] == [
        ("id", "data_id"),
        ("Time", "data_time"),
        ("userId", "userid"),
        ("userid", "userid_2"),
        ("utm.source", "utm_source"),
    ]
    assert not {c.column for c in made} & set(ATTRIBUTES)


def test_an_added_property_is_a_column_and_a_changed_type_is_one_of_its_own() -> None:
    first = schema(n={"type": "integer"}, items={"type": "array", "items": schema(a=True)})
    second = schema(n={"type": "integer"}, items={"type": "array", "items": schema(a=True, b={"type": "boolean"})}, code=True)
    third = schema(n={"type": "string"}, code=True)
    made = table("order", {"order/1-0-0": first, "order/1-1-0": second, "order/2-0-0": third})
    assert {c.column: ddl(c.type) for c in made.columns} == {
        "n": "bigint",
        "items": "array<struct<`a`: string, `b`: boolean>>",
        "code": "string",
        "n_v2": "string",
    }
    assert {ref: [(f.property, f.column) for f in shape.fields] for ref, shape in made.by_ref.items()} == {
        "order/1-0-0": [("n", "n"), ("items", "items")],
        "order/1-1-0": [("n", "n"), ("items", "items"), ("code", "code")],
        "order/2-0-0": [("n", "n_v2"), ("code", "code")],
    }


def test_the_plan_of_this_checkout() -> None:
    made = tables(read_plan(ROOT / "schemas"))
    assert {c.column: ddl(c.type) for c in made["purchase"].columns} == {
        "quantity": "bigint",
        "amount_usd": "double",
        "order_id": "string",
        "session_id": "string",
        "products": "array<struct<`product_id`: string, `name`: string, `quantity`: bigint, `price_usd`: double>>",
    }
    assert made["purchase"].columns[1].description == "Sum paid, in US dollars."
    assert {c.column: ddl(c.type) for c in made["identify"].columns}["created_at"] == "timestamp"


def test_versions_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "order").mkdir()
    for version in ("10-0-0", "2-0-0", "1-10-0", "1-9-0"):
        (tmp_path / f"order/{version}.json").write_text(json.dumps(schema(a=True)))
    (tmp_path / "tracking_plan.yaml").write_text("events: {order: {}}")
    assert list(read_plan(tmp_path)["order"]) == ["order/1-9-0", "order/1-10-0", "order/2-0-0", "order/10-0-0"]


@pytest.mark.parametrize("text", ["events: [", "nothing: {}", "", "events: {order: {}}"])
def test_a_plan_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "order").mkdir()
    (tmp_path / "order/1-0-0.json").write_text("{")
    (tmp_path / "tracking_plan.yaml").write_text(text)
    with pytest.raises(PlanError, match="headrace schemas check") as caught:
        read_plan(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_type_named_like_a_table_of_curation_gets_another() -> None:
    assert table("events", {"events/1-0-0": schema(a=True)}).name == "event_events"


def test_the_marks_of_this_checkout() -> None:
    marks = read_marks(ROOT / "schemas")
    assert marks["identify"] == {"data": {"email": "hash", "name": "drop"}}
    assert marks["purchase"] == {}
    assert set(marks) == set(read_plan(ROOT / "schemas"))


def test_marks_of_a_plan_that_is_wrong_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tracking_plan.yaml").write_text("events: {order: {pii: [email]}}")
    with pytest.raises(PlanError, match=r"AttributeError.*headrace schemas check"):
        read_marks(tmp_path)
