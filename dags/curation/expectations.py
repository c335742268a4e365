"""What must be true of events beyond their schema: `schemas/<type>/expectations.yaml`. Pure, and free of Spark.

| check     | of                | holds where                                                                                           |
|-----------|-------------------|-------------------------------------------------------------------------------------------------------|
| present   | a row             | `property` is there                                                                                   |
| range     | a row             | `property` is between `min` and `max` (one of them may be left out), or not there                     |
| set       | a row             | `property` is one of `values`, or not there                                                           |
| unique    | the table         | no two events of the last `days` have the same `property`                                             |
| reference | the table         | each `property` of the last `days` is the `to` (TYPE.PROPERTY) of an event of the last `days`         |
| fresh     | the table         | an event was received in the last `hours`                                                             |
| volume    | the table         | the last 24 hours have `min` to `max` times the events of the same hours a week before, if these were |
|           |                   | 100 or more                                                                                           |

`level: warn` only counts. `level: fail` of a row puts the row into silver.quarantine; of the table, it fails the task once all is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FILE = "expectations.yaml"
OF_ROWS = frozenset({"present", "range", "set"})
# check -> (members that it must have, members that it may have), besides `check` and `level`
_MEMBERS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    "present": (frozenset({"property"}), frozenset()),
    "range": (frozenset({"property"}), frozenset({"min", "max"})),
    "set": (frozenset({"property", "values"}), frozenset()),
    "unique": (frozenset({"property"}), frozenset({"days"})),
    "reference": (frozenset({"property", "to"}), frozenset({"days"})),
    "fresh": (frozenset({"hours"}), frozenset()),
    "volume": (frozenset(), frozenset({"min", "max"})),
}
_NUMBERS = frozenset({"min", "max", "days", "hours"})
_DAYS = 7
Properties = Mapping[str, Mapping[str, str]]  # event type -> property -> its type in JSON Schema ("" where there is none or several)


@dataclass(frozen=True)
class Expectation:
    """One thing that must be true of events of `type`; the members are those of the file, `of` is `property` there."""

    name: str
    type: str
    check: str
    level: str
    of: str = ""
    min: float | None = None
    max: float | None = None
    values: tuple[Any, ...] = field(default=())
    days: float = _DAYS
    hours: float = 0
    to: str = ""

    @property
    def of_rows(self) -> bool:
        """Whether each row can be judged by itself."""
        return self.check in OF_ROWS

    def __str__(self) -> str:
        """In words, such as `amount: amount_usd is from 0 to 5`."""
        if self.check == "present":
            rule = f"{self.of} is there"
        elif self.check == "range":
            rule = f"{self.of} is {self._bounds('')}"
        elif self.check == "set":
            rule = f"{self.of} is one of {', '.join(map(str, self.values))}"
        elif self.check == "unique":
            rule = f"no {self.of} comes twice in {self.days:g} days"
        elif self.check == "reference":
            rule = f"each {self.of} is a {self.to} of the last {self.days:g} days"
        elif self.check == "fresh":
            rule = f"an event came in the last {self.hours:g} hours"
        else:
            rule = f"a day has {self._bounds(' times')} the events of that a week before"
        return f"{self.name}: {rule}"

    def _bounds(self, unit: str) -> str:
        pairs = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{words} {bound:g}{unit}" for words, bound in pairs if bound is not None)


class ExpectationsError(Exception):
    """Expectations cannot be used; `problems` has a sentence for each thing to mend."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def properties_of(schemas: Mapping[str, Mapping[str, Any]]) -> Properties:
    """The properties of all versions, from schemas by schema ref."""
    found: dict[str, dict[str, str]] = {}
    for ref, schema in schemas.items():
        for name, of in schema["properties"].items():
            kinds = of.get("type") if isinstance(of, dict) else None
            kinds = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
            found.setdefault(ref.split("/")[0], {})[name] = kinds[0] if len(kinds) == 1 and isinstance(kinds[0], str) else ""
    return found


def read_expectations(folder: Path, properties: Properties) -> dict[str, list[Expectation]]:
    """Event type -> what is expected of it, for each that has a file. Raises ExpectationsError."""
    found: dict[str, list[Expectation]] = {}
    problems: list[str] = []
    for type in properties:
        path = folder / type / FILE
        if not path.is_file():
            continue
        try:
            declared = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            problems.append(f"{path}: {' '.join(str(error).split())}")
            continue
        if not isinstance(declared, dict):
            problems.append(f"{path}: it is a name for each expectation, with check, level and what the check needs")
            continue
        for name, of in declared.items():
            wrong = _problems(of, type, properties)
            problems += [f"{path}: {name}: {each}" for each in wrong]
            if not wrong:
                values = {"of" if key == "property" else key: value for key, value in of.items()} | {"values": tuple(of.get("values", ()))}
                found.setdefault(type, []).append(Expectation(name=str(name), type=type, **values))
    if problems:
        raise ExpectationsError(problems)
    return found


def _problems(of: Any, type: str, properties: Properties) -> list[str]:
    if not isinstance(of, dict) or of.get("check") not in _MEMBERS:
        return [f"check is one of {', '.join(_MEMBERS)}"]
    check: str = of["check"]
    must, may = _MEMBERS[check]
    members = set(of) - {"check", "level"}
    found = [f"{check} needs {each}" for each in sorted(must - members)]
    found += [f"{check} has no {each}: it has {', '.join(sorted(must | may))}" for each in sorted(members - must - may, key=str)]
    if of.get("level") not in ("warn", "fail"):
        found.append("level is warn or fail")
    found += [f"{each} is a number" for each in sorted(_NUMBERS & members) if not _number(of[each])]
    found += [f"{each} is more than 0" for each in sorted({"days", "hours"} & members) if _number(of[each]) and of[each] <= 0]
    if check in ("range", "volume") and not {"min", "max"} & members:
        found.append(f"{check} needs min or max")
    elif {"min", "max"} <= members and _number(of["min"]) and _number(of["max"]) and of["min"] > of["max"]:
        found.append("min is more than max")
    if "property" in must & members:
        found += _property_problems(of["property"], type, properties, numeric=check == "range")
    if "to" in must & members:
        other, dot, name = str(of["to"]).partition(".")
        found += _property_problems(name, other, properties, numeric=False) if dot else ["to is TYPE.PROPERTY"]
    if "values" in must & members and not (isinstance(of["values"], list) and of["values"]):
        found.append("values is a list")
    return found


def _property_problems(name: Any, type: str, properties: Properties, numeric: bool) -> list[str]:
    if type not in properties:
        return [f"there is no event type {type}"]
    if name not in properties[type]:
        return [f"no schema of {type} has a property {name}"]
    kind = properties[type][name]
    if numeric and kind not in ("integer", "number"):
        return [f"{name} is no number"]
    if kind in ("object", "array"):
        return [f"{name} is an {kind}: only single values can be judged"]
    return []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
