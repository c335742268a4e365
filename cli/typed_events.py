"""From the tracking plan to a Python module with a class for each version of each event type. Pure."""

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from headrace.registry import Registry

_HEADING = '''"""The event types of the tracking plan. Written by `headrace schemas python`: do not edit, write it anew."""

# ruff: noqa
import typing

import msgspec
'''
_SIMPLE = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_ANY = "typing.Any"
# What a field must not be called, since annotations after it would mean the field; and the members that every class has.
_TAKEN = {"str", "int", "float", "bool", "list", "dict", "typing", "msgspec", "self", "event_type", "schema_ref"}
_UNNAMEABLE = re.compile('["\\\\\x00-\x1f]')  # msgspec writes names as they are, without escapes

Types = list[str]  # the alternatives of a union


def module(registry: Registry) -> str:
    """The text of the module. Where the plan's version of a type is `1-0-1`, that one is `Purchase` and another `Purchase_1_0_0`."""
    return _Module(registry).text()


class _Module:
    """Classes by name, each written once, those that others need before them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._names: set[str] = set()
        self._classes: list[str] = []

    def text(self) -> str:
        refs = sorted(self._registry.schemas, key=lambda ref: (ref.partition("/")[0], not self._is_default(ref), ref))
        names = {ref: self._name(self._class_name(ref)) for ref in refs}  # first, so that these do not depend on what else there is
        for ref in refs:
            self._event(ref, names[ref])
        return "\n\n".join([_HEADING, *self._classes])

    def _is_default(self, ref: str) -> bool:
        type, _, version = ref.partition("/")
        return self._registry.types[type].version == version

    def _class_name(self, ref: str) -> str:
        type, _, version = ref.partition("/")
        return _camel(type) if self._is_default(ref) else f"{_camel(type)}_{version.replace('-', '_')}"

    def _name(self, wanted: str) -> str:
        while wanted in self._names or keyword.iskeyword(wanted):
            wanted += "_"
        self._names.add(wanted)
        return wanted

    def _event(self, ref: str, name: str) -> None:
        schema, type = self._registry.schemas[ref], ref.partition("/")[0]
        purpose = _line(self._registry.types[type].purpose)
        says = [f"{_line(schema.get('title')) or type}. {purpose}", f"The schema is {ref}. Properties that it does not name need `track`."]
        constants = [f'event_type: typing.ClassVar[str] = "{type}"', f'schema_ref: typing.ClassVar[str] = "{ref}"']
        self._write(name, schema, _Schema(self, schema, name), says, constants)

    def _write(self, name: str, schema: Mapping[str, Any], types: "_Schema", says: list[str], constants: Iterable[str] = ()) -> None:
        """A class with the properties of `schema`, after the classes that it needs."""
        required = dict.fromkeys(schema.get("required", ()))
        properties = {key: of for key, of in {**dict.fromkeys(required, True), **schema.get("properties", {})}.items() if of is not False}
        says += [f"{key!a} cannot be a field of a class: use `track` to send it." for key in properties if _UNNAMEABLE.search(key)]
        found = {key: types.of(of, f"{name}{_camel(key)}") for key, of in properties.items() if not _UNNAMEABLE.search(key)}
        used, fields, rename = _TAKEN | self._names, list[str](), dict[str, str]()
        for key in sorted(found, key=lambda key: key not in required):
            field = _identifier(key, used)
            used.add(field)
            if field != key:
                rename[field] = key
            fields.append(_field(field, found[key], key in required))
            if isinstance(of := properties[key], Mapping) and (description := _line(of.get("description"))):
                says.append(f"`{field}`: {description}")
        options = ["kw_only=True", "omit_defaults=True", *([f"rename={rename!r}"] if rename else [])]
        members = [*_docstring(says), *constants, *fields]
        body = "\n".join(f"    {line}" if line else "" for line in members)
        self._classes.append(f"class {name}(msgspec.Struct, {', '.join(options)}):\n{body}\n")

    def nested(self, schema: Mapping[str, Any], types: "_Schema", wanted: str) -> str:
        """The name of a class for an object within an event."""
        name = self._name(wanted)
        self._write(name, schema, types, [_line(schema.get("description")) or "An object within an event."])
        return name


class _Schema:
    """The types of one schema's parts."""

    def __init__(self, module: _Module, root: Mapping[str, Any], name: str) -> None:
        self._module, self._root, self._name = module, root, name
        self._by_ref: dict[str, Types] = {}

    def of(self, schema: Any, name: str) -> Types:
        """What `schema` allows; `name` is for a class that it may need. Wider where Python has no such type."""
        if not isinstance(schema, Mapping):
            return [_ANY]
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]))
        if "enum" in schema or "const" in schema:
            return _literal(schema.get("enum", [schema.get("const")]))
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return _union(self.of(one, f"{name}{number}") for number, one in enumerate(schema[several], start=1))
        if len(schema.get("allOf", ())) == 1 and "properties" not in schema:
            return self.of(schema["allOf"][0], name)
        types = schema.get("type", "any")
        return _union([self._simple(one, schema, name)] for one in ([types] if isinstance(types, str) else types))

    def _simple(self, type: str, schema: Mapping[str, Any], name: str) -> str:
        if type == "array":
            return f"list[{_text(self.of(schema.get('items'), name + 'Item'))}]"
        if type == "object":
            if schema.get("properties"):
                return self._module.nested(schema, self, name)
            return f"dict[str, {_text(self.of(schema.get('additionalProperties'), name + 'Value'))}]"
        return _SIMPLE.get(type, _ANY)

    def _referred(self, ref: str) -> Types:
        """`#/$defs/…`; the registry lets no other pass. Where one refers to itself, it is any JSON."""
        if ref not in self._by_ref:
            self._by_ref[ref] = [_ANY]
            target: Any = self._root
            for part in ref.removeprefix("#").split("/")[1:]:
                target = target.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
            if target is not self._root:
                self._by_ref[ref] = self.of(target, f"{self._name}{_camel(ref.rpartition('/')[2])}")
        return self._by_ref[ref]


def _literal(values: list[Any]) -> Types:
    if not all(isinstance(value, str | int | None) for value in values):
        return [_ANY]
    named = ", ".join(repr(value) for value in values if value is not None)
    return [*([f"typing.Literal[{named}]"] if named else []), *(["None"] if None in values else [])]


def _union(types: Iterable[Types]) -> Types:
    found = list(dict.fromkeys(each for some in types for each in some))
    return [_ANY] if _ANY in found or not found else found


def _text(types: Types) -> str:
    return " | ".join(types)


def _field(name: str, types: Types, required: bool) -> str:
    if required:
        return f"{name}: {_text(types)}"
    if "None" in types or types == [_ANY]:  # null says something else than absence
        return f"{name}: {_text(types)} | msgspec.UnsetType = msgspec.UNSET"
    return f"{name}: {_text(types)} | None = None"


def _camel(name: str) -> str:
    words = re.sub(r"\W", "_", name, flags=re.ASCII).split("_")
    text = "".join(word[:1].upper() + word[1:] for word in words)
    return text if text[:1].isalpha() else f"X{text}"


def _identifier(key: str, used: set[str]) -> str:
    """A field's name for the property `key`: itself where Python allows it."""
    field = re.sub(r"\W", "_", key, flags=re.ASCII)
    if not field[:1].isalpha():
        field = f"x_{field.lstrip('_')}"
    while field in used or keyword.iskeyword(field):
        field += "_"
    return field


def _line(text: object) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""


def _docstring(paragraphs: list[str]) -> list[str]:
    """Lines of a docstring that holds any text."""
    safe = [text.replace("\\", "\\\\").replace('"', "'") for text in paragraphs]
    return [f'"""{safe[0]}', *(line for text in safe[1:] for line in ("", text)), '"""'] if len(safe) > 1 else [f'"""{safe[0]}"""']
