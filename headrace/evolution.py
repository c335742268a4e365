"""May one JSON Schema of data follow another? Pure.

A version is MODEL-REVISION-ADDITION. Within a MODEL every property keeps its column, so its type must stay. Within a REVISION all data that
was valid stays valid, and every property that was described still is: a reader of the old version can read the new.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_RULES = ("pattern", "const", "multipleOf", "not", "oneOf", "anyOf", "allOf", "prefixItems", "propertyNames", "dependentRequired")


@dataclass(frozen=True)
class Break:
    """One thing that may not follow: `where` it is and `what` it is in words. `model`: it takes a new MODEL, not only a new REVISION."""

    where: str
    what: str
    model: bool


def breaks(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "data") -> list[Break]:
    """Everything by which `new` may not follow `old` in the same REVISION."""
    return list(_breaks(old, new, (old, new), where, frozenset()))


def refusals(schemas: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each version that may not follow the one before it. `schemas`: by schema ref (`purchase/1-0-0`)."""
    found = []
    versions = sorted((ref.rpartition("/")[0], [int(part) for part in ref.rpartition("/")[2].split("-")], ref) for ref in schemas)
    for (type, old, old_ref), (other, new, new_ref) in itertools.pairwise(versions):
        if type != other or old[0] != new[0]:
            continue
        for one in breaks(schemas[old_ref], schemas[new_ref]):
            if one.model:
                wanted = f"{type}/{old[0] + 1}-0-0"
            elif old[1] == new[1]:
                wanted = f"{type}/{old[0]}-{old[1] + 1}-0"
            else:
                continue
            found.append(f"{new_ref}: {one.where} {one.what} ({old_ref} is the version before): name the new version {wanted}")
    return found


def _breaks(old: Any, new: Any, roots: tuple[Any, Any], where: str, seen: frozenset[tuple[str, str]]) -> Iterator[Break]:
    refs = (_ref(old), _ref(new))
    if refs != ("", ""):
        if refs in seen:
            return
        seen = seen | {refs}
    old, new = resolved(old, roots[0]), resolved(new, roots[1])
    if old == new and not any(refs):
        return
    before, now = _types(old), _types(new)
    if before - {"null"} != now - {"null"}:
        yield Break(where, f"was {_words(before)} and is {_words(now)}", model=True)
        return
    if _format(old) != _format(new) and {_format(old), _format(new)} & {"date", "date-time"}:
        yield Break(where, f"had the format {old.get('format', 'none')} and has {new.get('format', 'none')}", model=True)
    elif "format" in new and new["format"] != old.get("format"):
        yield Break(where, f"got the format {new['format']}", model=False)
    if before and now and "null" in before - now:
        yield Break(where, "may no longer be null", model=False)
    yield from (Break(where, what, model=False) for what in _narrower(old, new))
    old_fields, new_fields = old.get("properties", {}), new.get("properties", {})
    for name, of in old_fields.items():
        if name in new_fields:
            yield from _breaks(of, new_fields[name], roots, f"{where}/{name}", seen)
        else:
            yield Break(f"{where}/{name}", "is gone", model=False)
    if isinstance(old.get("items"), dict) and isinstance(new.get("items"), dict):
        yield from _breaks(old["items"], new["items"], roots, f"{where}/*", seen)


def _narrower(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """How `new` itself (not what is in it) takes less than `old`."""
    for bound in _LOWER_BOUNDS:
        if bound in new and (bound not in old or new[bound] > old[bound]):
            yield f"got {bound} {new[bound]} (was {old.get(bound, 'none')})"
    for bound in _UPPER_BOUNDS:
        if bound in new and (bound not in old or new[bound] < old[bound]):
            yield f"got {bound} {new[bound]} (was {old.get(bound, 'none')})"
    if "enum" in new and ("enum" not in old or any(value not in new["enum"] for value in old["enum"])):
        yield f"takes only {new['enum']} (was {old.get('enum', 'anything')})"
    yield from (f"got another {rule}" for rule in _RULES if rule in new and new[rule] != old.get(rule))
    if missing := sorted(set(new.get("required", ())) - set(old.get("required", ()))):
        yield f"requires {', '.join(missing)}"
    if new.get("additionalProperties", True) is False and old.get("additionalProperties", True) is not False:
        yield "takes no other properties any more"
    if new.get("uniqueItems") and not old.get("uniqueItems"):
        yield "got uniqueItems"


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    kinds = schema.get("type", ())
    return frozenset([kinds] if isinstance(kinds, str) else kinds)


def _words(types: frozenset[str]) -> str:
    return " or ".join(sorted(types)) or "anything"


def _format(schema: Mapping[str, Any]) -> str:
    return str(schema.get("format", ""))


def _ref(schema: Any) -> str:
    return str(schema.get("$ref", "")) if isinstance(schema, dict) else ""


def resolved(schema: Any, root: Any) -> Mapping[str, Any]:
    """`schema`, or what it refers to; anything else than an object of JSON takes anything."""
    for _ in range(50):  # a chain of references
        ref = _ref(schema)
        if not re.match(r"#(/|$)", ref):
            break
        schema = root
        for step in ref[2:].split("/") if ref[2:] else ():
            schema = schema.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(schema, dict) else {}
    return schema if isinstance(schema, dict) else {}
