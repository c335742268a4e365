"""The tracking plan and its JSON Schemas: which event types there are, and whether an event's data is valid."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jsonschema
import jsonschema_rs
import msgspec
import orjson
import yaml

from headrace import privacy
from headrace.dead_letter import Invalid, Reason

_TYPE = re.compile(r"[a-z][a-z0-9_]{0,49}")
_VERSION = re.compile(r"[1-9][0-9]*-[0-9]+-[0-9]+")
_PLAN = "tracking_plan.yaml"
_NO_TYPES = {"examples", "collector"}  # other folders in the schemas' folder
_TAKEN_TABLES = {"events", "quarantine", "dead_letters"}  # silver has a table of each type, and these
_DETAIL_CHARS = 300

Need = Literal["optional", "required"]
SKIPPED = "enrichment_skipped"  # the member of an event's enrichment that says which are missing and why
_ENRICHMENT = re.compile(r"[a-z][a-z0-9_]{0,49}")


class PlanError(Exception):
    """The tracking plan cannot be used; `problems` has one sentence for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class EventType(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, frozen=True):
    """One event type of the tracking plan.

    `version` is the one that an event gets which names none. `aliases` are other names under which clients send it (the name of a
    Segment call or track event). `subject` says whether an event needs one. `pii` says what becomes of fields that identify a person, in
    Elasticsearch and from silver on (`headrace.privacy` has the form of places and actions).
    `enrich` names the enrichments asked for; one that is `required` is waited for, one that is `optional` (so where only names are
    listed) is left out while the enrichment API fails.
    """

    version: str
    owner: str
    purpose: str
    aliases: tuple[str, ...] = ()
    subject: Literal["required", "optional"] = "optional"
    pii: dict[str, str] = msgspec.field(default_factory=dict)
    enrich: tuple[str, ...] | dict[str, Need] = ()

    @property
    def enrichments(self) -> dict[str, Need]:
        """How much each enrichment asked for is needed, by name."""
        return self.enrich if isinstance(self.enrich, dict) else dict.fromkeys(self.enrich, "optional")

    @property
    def marks(self) -> privacy.Tree:
        """The fields that identify a person."""
        return privacy.tree(self.pii)


class _Plan(msgspec.Struct, forbid_unknown_fields=True):
    events: dict[str, EventType]


class Registry:
    """The tracking plan, read once. Everything here is a pure function of the files in its folder."""

    def __init__(self, types: Mapping[str, EventType], schemas: Mapping[str, dict[str, Any]]) -> None:
        self.types = types
        self.schemas = schemas  # by schema ref
        # The event type by each name that clients may call it, in lower case.
        self.names = {name.lower(): name for name in types} | {alias.lower(): name for name, of in types.items() for alias in of.aliases}
        self._default_ref = {name: f"{name}/{of.version}" for name, of in types.items()}
        self._validators = {ref: _validator(schema) for ref, schema in schemas.items()}

    @classmethod
    def load(cls, folder: Path) -> "Registry":
        """The plan and the schemas in `folder`. Raises PlanError with every problem found."""
        types, schemas, problems = _read(folder)
        if problems:
            raise PlanError(problems)
        return cls(types, schemas)

    def type_named(self, name: str) -> str | None:
        """The event type that clients call `name` (its own name or an alias, in any case), or None."""
        return self.names.get(name) or self.names.get(name.lower())

    def schema_ref(self, type: str, asked: str | None = None) -> str:
        """The schema ref of an event of `type` (one of the plan's) whose dataschema is `asked`. Raises Invalid(UNKNOWN_SCHEMA)."""
        if asked is None:
            return self._default_ref[type]
        if asked in self._validators and asked.startswith(type + "/"):
            return asked
        known = ", ".join(self.refs(type))
        raise Invalid(Reason.UNKNOWN_SCHEMA, f"dataschema {asked[:100]!r} is not a schema of {type}; known: {known}")

    def refs(self, type: str) -> list[str]:
        """The schema refs of all versions of `type`."""
        return [ref for ref in self.schemas if ref.startswith(type + "/")]

    def validate(self, ref: str, data: bytes) -> None:
        """Check JSON text against the schema `ref`. Raises Invalid (UNPARSEABLE, UNKNOWN_SCHEMA or SCHEMA_INVALID)."""
        validator = self._validators.get(ref)
        if validator is None:
            raise Invalid(Reason.UNKNOWN_SCHEMA, f"{ref[:100]!r} is not in the tracking plan")
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise Invalid(Reason.UNPARSEABLE, f"data is not JSON: {error}") from None
        try:
            if validator.is_valid(value):
                return
            first = next(iter(validator.iter_errors(value)))
        except ValueError as error:  # the validator gives up at about 250 levels; it raises for nothing else that JSON can hold
            raise Invalid(Reason.SCHEMA_INVALID, f"data is nested too deeply to be checked: {error} ({ref})") from None
        place = "/".join(["data", *map(str, first.instance_path)])
        raise Invalid(Reason.SCHEMA_INVALID, f"{_excerpt(place)}: {_excerpt(first.message)} ({ref})")


def _excerpt(text: str) -> str:
    """`text` in at most `_DETAIL_CHARS`: its end stays, where the validator says what would be right."""
    return text if len(text) <= _DETAIL_CHARS else f"{text[: _DETAIL_CHARS - 101]}…{text[-100:]}"


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True, retriever=_refuse_remote)


def _refuse_remote(uri: str) -> Any:
    """A schema must mean the same tomorrow and without a network."""
    raise ValueError(f"$ref to {uri}: a schema may refer only to itself (#/$defs/…)")


def _read(folder: Path) -> tuple[dict[str, EventType], dict[str, dict[str, Any]], list[str]]:
    plan = folder / _PLAN
    try:
        events = msgspec.convert(yaml.load(plan.read_bytes(), _UniqueKeys), _Plan).events  # noqa: S506 - derived from SafeLoader
    except OSError as error:
        return {}, {}, [f"{plan}: {error.strerror}: every platform needs a tracking plan there (setting SCHEMAS_DIR)"]
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        return {}, {}, [f"{plan}: {' '.join(str(error).split())}"]
    schemas: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    taken: dict[str, str] = {}
    for name, of in events.items():
        problems += _check_type(plan, folder, name, of)
        for called in (name, *of.aliases):
            other = taken.setdefault(called.lower(), name)
            if other != name:
                problems.append(f"{plan}: {called!r} stands for both {other} and {name}: give it to one of them")
        for path in sorted((folder / name).glob("*.json")):
            schema, found = _read_schema(path)
            problems += found
            if schema is not None:
                schemas[f"{name}/{path.stem}"] = schema
        versions = [schema for ref, schema in schemas.items() if ref.startswith(name + "/")]
        problems += [f"{plan}: {name}: {problem}" for problem in privacy.problems(of.pii, versions, of.enrich)] if versions else []
    problems += _subject_problems(plan, events)
    planned = set(events) | _NO_TYPES
    problems += [
        f"{path}: there are schemas but {plan.name} has no event type {path.name!r}: add it there or remove the folder"
        for path in sorted(folder.iterdir())
        if path.is_dir() and path.name not in planned
    ]
    return events, schemas, problems


def _check_type(plan: Path, folder: Path, name: str, of: EventType) -> list[str]:
    problems = []
    if not _TYPE.fullmatch(name):
        problems.append(f"{plan}: event type {name!r}: use lower-case letters, digits and _ (at most 50, a letter first)")
    if name in _NO_TYPES | _TAKEN_TABLES:
        problems.append(f"{plan}: event type {name!r}: that name is Headrace's own: choose another")
    if not _VERSION.fullmatch(of.version):
        problems.append(f"{plan}: {name}: version {of.version!r} is not MODEL-REVISION-ADDITION, such as 1-0-0")
    elif not (folder / name / f"{of.version}.json").is_file():
        problems.append(f"{plan}: {name}: there is no {folder / name / of.version}.json: write that schema")
    problems += [
        f"{plan}: {name}: enrichment {enrichment!r}: use lower-case letters, digits and _ (at most 50, a letter first), and not {SKIPPED!r}"
        for enrichment in of.enrich
        if not _ENRICHMENT.fullmatch(enrichment) or enrichment == SKIPPED
    ]
    problems += [f"{plan}: {name}: {field} is empty" for field in ("owner", "purpose") if not getattr(of, field).strip()]
    return problems


def _subject_problems(plan: Path, events: Mapping[str, EventType]) -> list[str]:
    """A customer must be called the same in all types, or nothing can be joined any more."""
    hashed = [name for name, of in events.items() if of.pii.get("subject") == privacy.HASH]
    return [
        f"{plan}: {name}: {hashed[0]} has pii subject: hash, and here it is not marked: hash or drop it in every type"
        for name, of in events.items()
        if hashed and "subject" not in of.pii
    ]


def _read_schema(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    if not _VERSION.fullmatch(path.stem):
        return None, [f"{path}: name it MODEL-REVISION-ADDITION.json, such as 1-0-0.json"]
    try:
        schema = orjson.loads(path.read_bytes())
        if not isinstance(schema, dict) or schema.get("type") != "object" or "properties" not in schema:
            return None, [f'{path}: a schema of data is an object with "type": "object" and "properties"']
        jsonschema.Draft202012Validator.check_schema(schema)
        _validator(schema)
    except orjson.JSONDecodeError as error:
        return None, [f"{path}: not JSON: {error}"]
    except (jsonschema.SchemaError, ValueError) as error:
        message = getattr(error, "message", str(error)).splitlines()[0]
        return None, [f"{path}: not a JSON Schema (2020-12): {message}"]
    return schema, []


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets a later key replace an earlier one in silence; here that would drop an event type."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands here twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
