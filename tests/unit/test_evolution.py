"""Which revision of a schema may follow which, and that `headrace schemas check` refuses the others."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.schemas import app
from headrace.evolution import Break, breaks, refusals

ROOT = Path(__file__).parents[2]


def schema(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


TEXT, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
MONEY = {"$defs": {"money": NUMBER}}
NODE = {"$defs": {"node": schema(next={"$ref": "#/$defs/node"})}}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (schema("a", a=TEXT), schema("a", a=TEXT, b=NUMBER)),  # an addition
        (schema("a", a=TEXT), schema(a=TEXT)),  # no longer required
        (schema(a=INTEGER | {"minimum": 1, "maximum": 5}), schema(a=INTEGER | {"minimum": 0, "maximum": 9})),
        (schema(a=TEXT | {"enum": ["x"]}), schema(a=TEXT | {"enum": ["x", "y"]})),
        (schema(a=TEXT | {"description": "One."}), schema(a=TEXT | {"description": "Another."})),
        (schema(a=TEXT), schema(a={"type": ["string", "null"]})),
        (schema(a=NUMBER), schema(a={"$ref": "#/$defs/money"}) | MONEY),
        (schema(a={"$ref": "#/$defs/node"}) | NODE, schema(a={"$ref": "#/$defs/node"}, b=TEXT) | NODE),  # refers to itself
        (schema(a={"type": "array", "items": schema(b=TEXT)}), schema(a={"type": "array", "items": schema(b=TEXT, c=TEXT)})),
    ],
)
def test_what_may_follow(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert breaks(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (schema(a=INTEGER), schema(a=TEXT), Break("data/a", "was integer and is string", True)),
        (schema(a=INTEGER), schema(a=NUMBER), Break("data/a", "was integer and is number", True)),  # another column in the lake
        (schema(a=NUMBER), schema(a=True), Break("data/a", "was number and is anything", True)),
        (schema(a=INTEGER), schema(a={"$ref": "#/$defs/money"}) | MONEY, Break("data/a", "was integer and is number", True)),
        (schema(a=TEXT), schema(a=TEXT | {"format": "date"}), Break("data/a", "had the format none and has date", True)),
        (schema(a=TEXT), schema(), Break("data/a", "is gone", False)),
        (schema(a=TEXT), schema("a", a=TEXT), Break("data", "requires a", False)),
        (schema(a=TEXT), schema(a=TEXT) | {"additionalProperties": False}, Break("data", "takes no other properties any more", False)),
        (schema(a=INTEGER), schema(a=INTEGER | {"minimum": 3}), Break("data/a", "got minimum 3 (was none)", False)),
        (schema(a=INTEGER | {"maximum": 9}), schema(a=INTEGER | {"maximum": 3}), Break("data/a", "got maximum 3 (was 9)", False)),
        (
            schema(a=TEXT | {"enum": ["x", "y"]}),
            schema(a=TEXT | {"enum": ["x"]}),
            Break("data/a", "takes only ['x'] (was ['x', 'y'])", False),
        ),
        (schema(a=TEXT), schema(a=TEXT | {"pattern": "^x"}), Break("data/a", "got another pattern", False)),
        (schema(a={"type": ["string", "null"]}), schema(a=TEXT), Break("data/a", "may no longer be null", False)),
        (
            schema(a={"type": "array", "items": schema(b=TEXT)}),
            schema(a={"type": "array", "items": schema(b=NUMBER)}),
            Break("data/a/*/b", "was string and is number", True),
        ),
    ],
)
def test_what_may_not(old: dict[str, Any], new: dict[str, Any], expected: Break) -> None:
    assert breaks(old, new) == [expected]


def test_the_number_of_a_version_says_what_may_change() -> None:
    narrower, other = schema("a", a=INTEGER), schema(a=TEXT)
    versions = {"x/1-0-0": schema(a=INTEGER), "x/1-1-0": narrower, "x/2-0-0": other, "y/10-0-0": narrower, "y/9-0-0": other}
    assert refusals(versions) == []
    assert refusals({"x/1-0-9": schema(a=INTEGER), "x/1-0-10": narrower}) == [
        "x/1-0-10: data requires a (x/1-0-9 is the version before): name the new version x/1-1-0"
    ]
    assert refusals({"x/1-0-0": schema(a=INTEGER), "x/1-1-0": other}) == [
        "x/1-1-0: data/a was integer and is string (x/1-0-0 is the version before): name the new version x/2-0-0"
    ]


def test_the_check_compares_with_what_is_deployed(tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.com", *arguments], check=True)

    def check(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["check", "--schemas", str(schemas), *arguments])
        return done.exit_code, done.output

    assert check("--against", "main") == (1, f"{schemas}: git has no revision main with it: give --against one that it has\n")
    git("init", "-q", "-b", "main")
    git("add", "schemas")
    git("commit", "-q", "-m", "Deployed")
    assert check()[0] == 0
    path = schemas / "login/1-0-0.json"
    committed = path.read_text()
    login = json.loads(committed)
    login["properties"]["note"] = {"type": "string"}
    path.write_text(json.dumps(login))
    assert check()[0] == 0
    login["properties"]["method"]["type"] = "number"
    path.write_text(json.dumps(login))
    code, said = check()
    assert code == 1
    assert f"{path}: data/method was string and is number, and events of login/1-0-0 as it was are in the lake" in said
    git("switch", "-q", "-c", "change")
    git("commit", "-q", "-a", "-m", "Break it")
    assert "data/method was string and is number" in check("--against", "main")[1]
    path.write_text(committed)
    (schemas / "login/1-0-0.json").rename(schemas / "login/1-0-1.json")
    assert check("--against", "main")[0] == 1
