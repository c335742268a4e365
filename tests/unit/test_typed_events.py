"""`headrace schemas python`: what it writes passes the type checker, and its objects are the JSON that the schemas describe."""

import importlib.util
import json
import shutil
import sys
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy import api as mypy
from typer.testing import CliRunner

from cli import examples, typed_events
from cli.__main__ import app
from headrace.registry import EventType, Registry
from producers.client.events import event_text

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"
_numbers = count()


def loaded(text: str, folder: Path) -> ModuleType:
    path = folder / f"typed_{next(_numbers)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def classes(module: ModuleType) -> dict[str, Any]:
    return {one.schema_ref: one for one in vars(module).values() if hasattr(one, "schema_ref")}


def checked(folder: Path, *files: Path) -> str:
    """What mypy --strict says."""
    said, failed, _ = mypy.run(
        ["--strict", "--follow-imports=silent", "--cache-dir", str(folder / "cache"), "--config-file", "", *map(str, files)]
    )
    assert not failed
    return said


def registry_of(schemas: dict[str, dict[str, Any]]) -> Registry:
    whole = {ref: {"type": "object", "properties": {}} | schema for ref, schema in schemas.items()}
    types = {ref.partition("/")[0]: EventType(version="1-0-0", owner="o", purpose="p") for ref in schemas}
    return Registry(types, whole)


def test_the_plan_becomes_a_module_that_mypy_accepts(tmp_path: Path) -> None:
    to = tmp_path / "events.py"
    result = CliRunner().invoke(app, ["schemas", "python", "--out", str(to)])
    registry = Registry.load(SCHEMAS)
    assert (result.exit_code, result.stdout) == (0, f"{to}: {len(registry.schemas)} classes\n")
    assert set(classes(loaded(to.read_text(), tmp_path))) == set(registry.schemas)
    use = tmp_path / "use.py"
    use.write_text(
        "from events import Login, Purchase, PurchaseProductsItem\n"
        "from producers.client import Client\n"
        "client = Client('http://127.0.0.1:8000', 'key', source='shop')\n"
        "item = PurchaseProductsItem(product_id='cd-1', quantity=1, price_usd=9.99)\n"
        "client.send(Purchase(quantity=1, amount_usd=9.99, products=[item]), subject='customer-1')\n"
        "client.send(Login(method='password'))\n"
        "Purchase(quantity='two', amount_usd=1)  # error\n"
        "Purchase(quantity=1)  # error\n"
        "Login(method='carrier pigeon')  # error\n"
        "client.send({'quantity': 1})  # error\n"
    )
    said = checked(tmp_path, to, use).splitlines()
    wrong = [number for number, line in enumerate(use.read_text().splitlines(), start=1) if line.endswith("# error")]
    assert [int(line.split(":")[1]) for line in said if ": error: " in line] == wrong


PASSING = [example for example in examples.read(SCHEMAS)[0] if example.passes]


@pytest.mark.parametrize("example", PASSING, ids=lambda example: f"{example.ref}-{example.path.name}")
def test_each_example_that_passes_is_its_object(example: examples.Example, tmp_path: Path) -> None:
    data = json.loads(example.data)
    event = msgspec.convert(data, classes(loaded(typed_events.module(Registry.load(SCHEMAS)), tmp_path))[example.ref])
    assert json.loads(msgspec.json.encode(event)) == data
    assert json.loads(event_text(event.event_type, event, id="1", source="s", schema_ref=event.schema_ref))["data"] == data


AWKWARD = ["class", "from", "None", "a-b", "a_b", "a b", "__x", "_x", "1st", "int", "str", "list", "typing", "msgspec", "event_type"]
AWKWARD += ["schema_ref", "self", "größe", "x", "x_", "id", "type", "Thing", "Thing_1_0_1", "naïve", "🎷", "$ref"]


def test_awkward_names_and_texts_are_handled(tmp_path: Path) -> None:
    text = {"type": "string", "description": 'says """hello\\world"""\nand more \\'}
    nested = {"type": "object", "properties": dict.fromkeys(AWKWARD, text), "required": AWKWARD[::2]}
    registry = registry_of(
        {
            "thing/1-0-0": {"properties": dict.fromkeys(AWKWARD, text) | {"deep": nested}, "required": AWKWARD, "title": '"""'},
            "thing/1-0-1": {"properties": {"x": text}},
            "none/1-0-0": {"properties": {'quo"te': text, "back\\slash": text, "line\nbreak": text, "good": text}},
        }
    )
    module = typed_events.module(registry)
    (file := tmp_path / "awkward.py").write_text(module)
    assert "Success" in checked(tmp_path, file)
    found = classes(loaded(module, tmp_path))
    assert {one.__name__ for one in found.values()} >= {"Thing", "Thing_1_0_1"}
    assert "'line\\\\nbreak' cannot be a field of a class: use `track` to send it." in module
    assert found["none/1-0-0"].__struct_fields__ == ("good",)
    data = {name: f"value of {name}" for name in AWKWARD} | {"deep": dict.fromkeys(AWKWARD, "v")}
    assert json.loads(msgspec.json.encode(msgspec.convert(data, found["thing/1-0-0"]))) == data


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_any_names_of_properties(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    registry = registry_of({"thing/1-0-0": {"properties": {name: {"type": "string"} for name in names}, "required": names[::2]}})
    found = classes(loaded(typed_events.module(registry), tmp_path_factory.mktemp("any")))["thing/1-0-0"]
    data = {name: "v" for name in names if not set(name) & set('"\\') and name.isprintable()}
    assert json.loads(msgspec.json.encode(msgspec.convert(dict.fromkeys(names, "v"), found))).items() >= data.items()


TYPES: list[tuple[dict[str, Any] | bool, str]] = [
    ({"type": "integer"}, "int | None = None"),
    ({"type": "number"}, "float | None = None"),
    ({"type": "boolean"}, "bool | None = None"),
    ({"type": ["string", "null"]}, "str | None | msgspec.UnsetType = msgspec.UNSET"),
    ({"enum": ["a", 1, True]}, "typing.Literal['a', 1, True] | None = None"),
    ({"enum": ["a", None]}, "typing.Literal['a'] | None | msgspec.UnsetType = msgspec.UNSET"),
    ({"const": "a"}, "typing.Literal['a'] | None = None"),
    ({"enum": [1.5]}, "typing.Any | msgspec.UnsetType = msgspec.UNSET"),
    ({"type": "array"}, "list[typing.Any] | None = None"),
    ({"type": "array", "items": {"type": ["integer", "null"]}}, "list[int | None] | None = None"),
    ({"type": "object"}, "dict[str, typing.Any] | None = None"),
    ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float] | None = None"),
    ({"type": "object", "properties": {"a": {"type": "string"}}}, "ThingOf | None = None"),
    ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, "str | list[str] | None = None"),
    ({"allOf": [{"type": "string"}]}, "str | None = None"),
    ({"$ref": "#/$defs/name"}, "str | None = None"),
    ({"$ref": "#/$defs/tree"}, "ThingTree | None = None"),
    ({"$ref": "#"}, "typing.Any | msgspec.UnsetType = msgspec.UNSET"),
    ({}, "typing.Any | msgspec.UnsetType = msgspec.UNSET"),
    (True, "typing.Any | msgspec.UnsetType = msgspec.UNSET"),
]


@pytest.mark.parametrize(("schema", "annotation"), TYPES)
def test_annotations(schema: dict[str, Any] | bool, annotation: str, tmp_path: Path) -> None:
    defs = {
        "name": {"type": "string"},
        "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "name": {"$ref": "#/$defs/name"}}},
    }
    module = typed_events.module(registry_of({"thing/1-0-0": {"properties": {"of": schema}, "$defs": defs}}))
    assert f"    of: {annotation}\n" in module
    loaded(module, tmp_path)


def test_a_forbidden_and_an_undescribed_required_property() -> None:
    module = typed_events.module(registry_of({"thing/1-0-0": {"properties": {"no": False}, "required": ["yes"]}}))
    assert "    yes: typing.Any\n" in module
    assert "no:" not in module


def test_null_and_absence_are_told_apart_where_the_schema_does(tmp_path: Path) -> None:
    schema = {"properties": {"maybe": {"type": ["string", "null"]}, "plain": {"type": "string"}}}
    thing = classes(loaded(typed_events.module(registry_of({"thing/1-0-0": schema})), tmp_path))["thing/1-0-0"]
    assert msgspec.json.encode(thing()) == b"{}"
    assert msgspec.json.encode(thing(maybe=None, plain=None)) == b'{"maybe":null}'


def test_what_cannot_be_read_or_written_is_said_in_one_line(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SCHEMAS, tmp_path / "schemas"))
    result = CliRunner().invoke(app, ["schemas", "python", "--out", str(tmp_path / "no" / "events.py")])
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    (folder / "login" / "1-0-0.json").write_text("{")
    result = CliRunner().invoke(app, ["schemas", "python", "--out", str(tmp_path / "events.py"), "--schemas", str(folder)])
    assert result.exit_code == 1
    assert "the tracking plan cannot be used:" in result.stderr
    assert not (tmp_path / "events.py").exists()
