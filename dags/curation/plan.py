"""From the tracking plan to the columns of silver: pure, and free of Spark.

| JSON Schema                              | column                                                            |
|------------------------------------------|-------------------------------------------------------------------|
| string, and anything not named below     | string (what is no string stands there as JSON text)              |
| string with format date-time / date      | timestamp / date                                                  |
| integer                                  | bigint (`2.0` is an integer in JSON Schema, so it is 2 here)       |
| number                                   | double                                                            |
| boolean                                  | boolean                                                           |
| array with items                         | array                                                             |
| object with properties                   | struct                                                            |
| "type": [T, "null"], local $ref          | as T; as what it refers to                                        |

Every version of an event type has the same table. A version that adds a property adds a column. A property that changes its type in
a later version gets a column of its own, `<name>_v<MODEL>`, since values of the two do not mix.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headrace.privacy import Tree, tree

# What curation says of an event beside what it was sent with.
FLAGS = ("is_late", "clock_skew_seconds")
# The columns that every typed table begins with; a property of the same name gets the prefix `data_`.
ATTRIBUTES = (
    *("id", "source", "type", "time", "subject", "dataschema", "data_json", "enrichment", "received_at", "enriched_at", "loaded_at"),
    *("collector_id", "protocol", "key_id", "client", "user_agent", "kafka_topic", "kafka_partition", "kafka_offset", "content_hash"),
    *FLAGS,
)
RESERVED_TABLES = frozenset({"events", "quarantine", "dead_letters"})


@dataclass(frozen=True)
class Scalar:
    """`name` is a type of Spark SQL."""

    name: str


@dataclass(frozen=True)
class Array:
    of: "ColumnType"


@dataclass(frozen=True)
class Field:
    """One property and the column that it becomes."""

    property: str
    column: str
    type: "ColumnType"
    description: str = field(default="", compare=False)


@dataclass(frozen=True)
class Struct:
    fields: tuple[Field, ...]


ColumnType = Scalar | Array | Struct
TEXT = Scalar("string")
_SCALARS = {"string": TEXT, "integer": Scalar("bigint"), "number": Scalar("double"), "boolean": Scalar("boolean")}
_FORMATS = {"date-time": Scalar("timestamp"), "date": Scalar("date")}


@dataclass(frozen=True)
class Table:
    """The silver table of one event type: its columns besides ATTRIBUTES, and for each schema ref the properties that fill them."""

    type: str
    name: str
    columns: tuple[Field, ...]
    by_ref: Mapping[str, Struct]


class PlanError(Exception):
    """The tracking plan cannot be used; the message says what to mend."""


def read_plan(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Event type -> schema ref -> JSON Schema, versions in order. Raises PlanError."""
    try:
        events = yaml.safe_load((folder / "tracking_plan.yaml").read_text())["events"]
        return {
            name: {f"{name}/{path.stem}": json.loads(path.read_text()) for path in sorted((folder / name).glob("*.json"), key=_version)}
            for name in events
        }
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise PlanError(f"{folder}: {type(error).__name__}: {' '.join(str(error).split())}: run `headrace schemas check`") from None


def read_marks(folder: Path) -> dict[str, Tree]:
    """Event type -> what of it identifies a person. Raises PlanError."""
    try:
        events = yaml.safe_load((folder / "tracking_plan.yaml").read_text())["events"]
        return {name: tree(of.get("pii") or {}) for name, of in events.items()}
    except (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise PlanError(f"{folder}: {type(error).__name__}: {' '.join(str(error).split())}: run `headrace schemas check`") from None


def tables(plan: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, Table]:
    """Event type -> its table."""
    return {name: table(name, schemas) for name, schemas in plan.items()}


def table(name: str, schemas: Mapping[str, dict[str, Any]]) -> Table:
    """The table of event type `name`, whose `schemas` by schema ref come in the order of their versions."""
    columns: dict[str, Field] = {}
    places: dict[str, list[tuple[str, str]]] = {}  # schema ref -> (property, column)
    for ref, schema in schemas.items():
        places[ref] = []
        for new in _shape(schema, schema, taken=ATTRIBUTES).fields:
            column = new.column
            merged = _merge(columns[column].type, new.type) if column in columns else new.type
            if merged is None:
                column = f"{new.column}_v{_version(Path(ref))[0]}"
                merged = (_merge(columns[column].type, new.type) if column in columns else new.type) or TEXT
            columns[column] = Field(new.property, column, merged, new.description)
            places[ref].append((new.property, column))
    by_ref = {ref: Struct(tuple(Field(prop, column, columns[column].type) for prop, column in pairs)) for ref, pairs in places.items()}
    return Table(name, f"event_{name}" if name in RESERVED_TABLES else name, tuple(columns.values()), by_ref)


def ddl(type: ColumnType) -> str:
    """The type as Spark SQL writes it, with the names of columns."""
    match type:
        case Scalar(name):
            return name
        case Array(of):
            return f"array<{ddl(of)}>"
        case Struct(fields):
            return f"struct<{', '.join(f'{quoted(each.column)}: {ddl(each.type)}' for each in fields)}>"


def parse_ddl(type: ColumnType) -> str:
    """The type as which JSON text is first read: with the names of properties, wide enough that a value which does not fit is seen."""
    match type:
        case Scalar("bigint"):
            return "decimal(37, 18)"
        case Scalar("timestamp" | "date"):
            return "string"
        case Scalar(name):
            return name
        case Array(of):
            return f"array<{parse_ddl(of)}>"
        case Struct(fields):
            return f"struct<{', '.join(f'{quoted(each.property)}: {parse_ddl(each.type)}' for each in fields)}>"


def quoted(name: str) -> str:
    """An identifier of Spark SQL."""
    return "`" + name.replace("`", "``") + "`"


def _shape(schema: dict[str, Any], root: dict[str, Any], taken: tuple[str, ...] = (), seen: frozenset[str] = frozenset()) -> Struct:
    used = set(taken)
    fields = []
    for name, of in schema["properties"].items():
        column = re.sub(r"[^a-z0-9_]", "_", name.lower()) or "_"
        if column in taken:
            column = f"data_{column}"
        while column in used:
            column += "_2"
        used.add(column)
        description = of.get("description", "") if isinstance(of, dict) else ""
        fields.append(Field(name, column, _type(of, root, seen), description))
    return Struct(tuple(fields))


def _type(schema: Any, root: dict[str, Any], seen: frozenset[str]) -> ColumnType:
    if not isinstance(schema, dict):
        return TEXT
    if "$ref" in schema:
        ref = str(schema["$ref"])
        return TEXT if ref in seen else _type(_resolve(ref, root), root, seen | {ref})
    kinds = schema.get("type")
    kinds = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
    match kinds:
        case ["object"] if schema.get("properties"):
            return _shape(schema, root, seen=seen)
        case ["array"] if isinstance(schema.get("items"), dict) and "prefixItems" not in schema:
            return Array(_type(schema["items"], root, seen))
        case ["string"]:
            return _FORMATS.get(str(schema.get("format")), TEXT)
        case ["integer" | "number" | "boolean" as kind]:
            return _SCALARS[kind]
    return TEXT


def _resolve(ref: str, root: dict[str, Any]) -> Any:
    if not ref.startswith("#/"):
        return None
    place: Any = root
    for step in ref[2:].split("/"):
        place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
    return place


def _merge(one: ColumnType, other: ColumnType) -> ColumnType | None:
    """The type that holds values of both, or None where they do not mix."""
    if one == other:
        return one
    match one, other:
        case Array(a), Array(b):
            merged = _merge(a, b)
            return Array(merged) if merged else None
        case Struct(a), Struct(b):
            fields = {each.property: each for each in a}
            for new in b:
                old = fields.get(new.property, new)
                merged = _merge(old.type, new.type)
                if merged is None:
                    return None
                fields[new.property] = Field(old.property, old.column, merged)
            return Struct(tuple(fields.values()))
    return None


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.split("-"))
