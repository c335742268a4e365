"""Fields that identify a person, as the tracking plan marks them, and what becomes of them. Pure, and of the standard library alone, since
Spark's environment has no more.

A mark is a place and an action: `hash` puts a keyed hash in the place of a text, `drop` leaves the field out.

| place                         | is                                                               |
|-------------------------------|------------------------------------------------------------------|
| `subject`                     | the attribute                                                    |
| `data/email`, `data/a/b`      | a property of data; a property of a property                     |
| `data/products/*/name`        | of each item of an array                                         |
| `enrichment/repurchase/score` | what an enrichment says (its name comes first)                   |

`/` and `~` in a name are written `~1` and `~0`, as in RFC 6901.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from headrace.evolution import resolved

HASH, DROP = "hash", "drop"
EACH = "*"
# What is marked, as a tree: an action for the place itself, or what is marked below it.
Tree = Mapping[str, "str | Tree"]
_ROOTS = ("subject", "data", "enrichment")


def pseudonym(key: str, text: str) -> str:
    """HMAC-SHA-256 (RFC 2104) of `text` in UTF-8, in hex: the same wherever and whenever it is made with the same key."""
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


def pads(key: str) -> tuple[bytes, bytes]:
    """The inner and the outer block of HMAC-SHA-256 (RFC 2104, section 2), for engines that have SHA-256 alone:
    sha256(outer + sha256(inner + text))."""
    secret = key.encode()
    block = (hashlib.sha256(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    return bytes(each ^ 0x36 for each in block), bytes(each ^ 0x5C for each in block)


def tree(marks: Mapping[str, str]) -> dict[str, Any]:
    """The marks of an event type (place -> action), which have no problems, as a tree."""
    found: dict[str, Any] = {}
    for place, action in marks.items():
        *above, last = _steps(place)
        below = found
        for step in above:
            below = below.setdefault(step, {})
        below[last] = action
    return found


def masked(value: Any, marks: Tree, key: str) -> Any:
    """`value` of JSON with what is marked hashed or left out. What is to be hashed and is no text becomes null, as does a dropped item."""
    if isinstance(value, dict):
        return {name: _masked(item, marks.get(name), key) for name, item in value.items() if marks.get(name) != DROP}
    if isinstance(value, list) and EACH in marks:
        return [_masked(item, marks[EACH], key) for item in value]
    return value


def _masked(value: Any, mark: "str | Tree | None", key: str) -> Any:
    if mark is None:
        return value
    if isinstance(mark, str):
        return pseudonym(key, value) if mark == HASH and isinstance(value, str) else None
    return masked(value, mark, key)


def problems(marks: Mapping[str, str], schemas: Iterable[Mapping[str, Any]], enrichments: Iterable[str]) -> list[str]:
    """A sentence for each mark of an event type that cannot be: `schemas` are those of all its versions."""
    schemas, enrichments = list(schemas), set(enrichments)
    found = []
    for place, action in marks.items():
        steps = _steps(place)
        if action not in (HASH, DROP):
            found.append(f"pii {place}: {action!r} is no action: say {HASH} or {DROP}")
        if (place != "subject") if steps[0] == "subject" else (steps[0] not in _ROOTS or len(steps) == 1):
            found.append(f"pii {place}: a place is subject, data/PROPERTY (data/a/b within it, data/a/*/b in each item) or enrichment/NAME")
        elif steps[0] == "enrichment" and steps[1] not in enrichments:
            found.append(f"pii {place}: no enrichment {steps[1]!r} is asked for")
        elif steps[0] == "data":
            kinds = [kind for schema in schemas for kind in _kinds(schema, schema, steps[1:])]
            if not kinds:
                found.append(f"pii {place}: no version has such a property")
            elif action == HASH and (others := sorted(set(kinds) - {"text"})):
                found.append(f"pii {place}: only text can be hashed, and it is {' or '.join(others)}: say {DROP}")
        found += [
            f"pii {place}: {other} holds it and is marked itself: keep one of them"
            for other in marks
            if other != place and steps[: len(_steps(other))] == _steps(other)
        ]
    return found


def _steps(place: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in place.split("/")]


def _kinds(schema: Any, root: Mapping[str, Any], steps: list[str]) -> Iterator[str]:
    """What stands at `steps` below `schema`, in words: "text" where it can be hashed. Nothing where there is no such place."""
    of = resolved(schema, root)
    if not steps:
        kinds = of.get("type")
        kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
        if kinds - {"null"} != {"string"}:
            yield " or ".join(sorted(kinds - {"null"})) or "anything"
        else:
            yield f"a {of['format']}" if of.get("format") in ("date", "date-time") else "text"
    elif steps[0] == EACH and isinstance(of.get("items"), dict):
        yield from _kinds(of["items"], root, steps[1:])
    elif steps[0] in of.get("properties", {}):
        yield from _kinds(of["properties"][steps[0]], root, steps[1:])
    elif "object" in str(of.get("type")) and not of.get("properties"):
        yield "text"  # an object of which the schema names no property may hold it
