"""Whether a .proto says the same as the JSON Schema beside it: the same members, of types that go together. Pure.

| JSON Schema                          | protobuf                                              |
|--------------------------------------|-------------------------------------------------------|
| string                               | string, bytes (base64), an enum (the names of values) |
| string of format date-time           | string, google.protobuf.Timestamp                     |
| integer                              | any type of integers                                  |
| number                               | double, any type of integers                          |
| boolean                              | bool                                                  |
| array                                | repeated, google.protobuf.ListValue                   |
| object                               | a message, a map, google.protobuf.Struct              |
| no type                              | anything, google.protobuf.Value                       |
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

PACKAGE = "headrace.schemas"
Field = Any  # a FieldDescriptor; the stubs say of each of its members that it may be None

_TIMESTAMP, _STRUCT, _LIST, _ANYTHING = (f"google.protobuf.{name}" for name in ("Timestamp", "Struct", "ListValue", "Value"))
_KINDS = {
    **dict.fromkeys(("INT32", "INT64", "UINT32", "UINT64", "SINT32", "SINT64", "FIXED32", "FIXED64", "SFIXED32", "SFIXED64"), "integer"),
    "DOUBLE": "number",
    "BOOL": "boolean",
    "STRING": "string",
    "BYTES": "string",
    "ENUM": "string",
}
_KIND = {getattr(FieldDescriptor, f"TYPE_{name}"): kind for name, kind in _KINDS.items()}  # JSON's type for a scalar of protobuf
_WELL_KNOWN = {_TIMESTAMP: "string", _STRUCT: "object", _LIST: "array"}
WELL_KNOWN = (*_WELL_KNOWN, _ANYTHING)


def is_map(field: Field) -> bool:
    """Whether `field` is a map, which to protobuf is a repeated message."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def problems(path: Path, ref: str, file: Any, schema: dict[str, Any]) -> Iterator[str]:
    """One sentence for each thing to mend in the .proto at `path` (`file`, compiled), whose JSON Schema `ref` is `schema`."""
    event, version = ref.split("/")
    package = f"{PACKAGE}.{event}.v{version.replace('-', '_')}"
    if file.package != package:
        yield f"{path}: write `package {package};`"
    if len(file.message_types_by_name) != 1:
        yield f"{path}: it has {len(file.message_types_by_name)} messages: write one, with all others inside it"
        return
    (message,) = file.message_types_by_name.values()
    yield from (f"{path}: {problem}" for problem in _disagreements(message, schema, schema, message.name, frozenset()))


def _disagreements(message: Any, schema: Any, root: Any, place: str, seen: frozenset[str]) -> Iterator[str]:
    if message.full_name in seen:
        return
    properties = schema.get("properties", {})
    for name in properties:
        if name not in message.fields_by_name:
            yield f"{place}: the JSON Schema has a property {name!r}: write a field for it"
    for field in message.fields:
        here = f"{place}.{field.name}"
        if field.name not in properties:
            yield f"{here}: the JSON Schema has no such property"
        elif not field.has_presence and not field.is_repeated:
            yield f"{here}: write `optional`, so that 0 and absent are told apart"
        else:
            yield from _member_disagreements(field, properties[field.name], root, here, seen | {message.full_name})


def _member_disagreements(field: Field, schema: Any, root: Any, here: str, seen: frozenset[str]) -> Iterator[str]:
    schema = _resolved(schema, root)
    if is_map(field):
        if field.message_type.fields_by_name["key"].type != FieldDescriptor.TYPE_STRING:
            yield f"{here}: the keys of a JSON object are strings"
        elif not _allows(schema, "object"):
            yield f"{here}: a map is an object, the JSON Schema wants {schema.get('type')}"
        elif isinstance(schema.get("additionalProperties"), dict):
            of = field.message_type.fields_by_name["value"]
            yield from _value_disagreements(of, _resolved(schema["additionalProperties"], root), root, here, seen)
    elif field.is_repeated:
        if not _allows(schema, "array"):
            yield f"{here}: a repeated field is an array, the JSON Schema wants {schema.get('type')}"
        elif isinstance(schema.get("items"), dict):
            yield from _value_disagreements(field, _resolved(schema["items"], root), root, here, seen)
    else:
        yield from _value_disagreements(field, schema, root, here, seen)


def _value_disagreements(field: Field, schema: Any, root: Any, here: str, seen: frozenset[str]) -> Iterator[str]:
    inner = field.message_type
    kind = _WELL_KNOWN.get(inner.full_name, "object") if inner else _KIND.get(field.type)
    if inner and inner.full_name == _ANYTHING:
        if "type" in schema:
            yield f"{here}: {_ANYTHING} is anything, the JSON Schema wants {schema['type']}"
    elif inner and inner.full_name not in _WELL_KNOWN and inner.file.package.startswith("google."):
        yield f"{here}: {inner.full_name} has no counterpart: use {', '.join(WELL_KNOWN)} or a message of your own"
    elif kind is None:
        yield f"{here}: use double: a float holds too little, and groups are of the past"
    elif not _allows(schema, kind):
        yield f"{here}: this is {kind}, the JSON Schema wants {schema.get('type')}"
    elif inner and inner.full_name not in _WELL_KNOWN:
        yield from _disagreements(inner, schema, root, here, seen)
    elif inner and inner.full_name == _TIMESTAMP and schema.get("format", "date-time") != "date-time":
        yield f"{here}: a Timestamp is a date-time, the JSON Schema wants the format {schema['format']}"
    elif field.type == FieldDescriptor.TYPE_ENUM and "enum" in schema:
        names = {name for name, value in field.enum_type.values_by_name.items() if value.number}
        wanted = {value for value in schema["enum"] if isinstance(value, str)}
        zero = field.enum_type.values_by_number[0].name
        if names - wanted or wanted - names - {zero}:
            yield f"{here}: the values are {', '.join(sorted(names))}, those of the JSON Schema {', '.join(sorted(wanted))}"


def _allows(schema: Any, kind: str) -> bool:
    """Whether a value of this type of JSON can be valid."""
    said = schema.get("type", kind)
    kinds = {said} if isinstance(said, str) else set(said)
    return kind in kinds or (kind == "integer" and "number" in kinds)


def _resolved(schema: Any, root: Any) -> Any:
    """A local `$ref` followed; a schema that is `true` or `false` as one that says nothing."""
    for _ in range(20):
        if not isinstance(schema, dict):
            return {}
        if not str(schema.get("$ref", "")).startswith("#/"):
            return schema
        place: Any = root
        for step in schema["$ref"][2:].split("/"):
            place = place.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(place, dict) else None
        schema = place
    return {}
