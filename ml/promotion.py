"""Who made which version the champion, when and why: promotion by a person, its record, and the way back.

The record is tags of the registered model, one for each change (`headrace.audit.<time>-<random>`), written before the alias moves: where a
process dies between the two, the record says more than happened, never less, and `story` shows it.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from ml.registry import Model, Registry, RegistryError

_PREFIX = "headrace.audit."
_MOST_WORDS = 2000  # a tag of MLflow has 5,000 characters


class Change(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """One change of the champion. `from_` and `to` are version numbers, None for no champion; `action` is promote or rollback."""

    at: str
    who: str
    why: str
    action: str
    from_: int | None
    to: int | None


def changes(model: Model) -> list[Change]:
    """The record, the oldest first."""
    return [msgspec.json.decode(model.tags[key], type=Change) for key in sorted(model.tags) if key.startswith(_PREFIX)]


def promote(registry: Registry, name: str, number: int, who: str, why: str) -> Change:
    """Make a version the champion. Raises RegistryError where the gate kept it out, or it is the champion already."""
    model, version = registry.model(name), registry.version(name, number)
    if not version.passed:
        said = "; ".join(version.reasons) or "it was not judged"
        raise RegistryError(f"{name} {number} did not pass the gate: {said}")
    if model.champion == number:
        raise RegistryError(f"{name} {number} is the champion already")
    return _change(registry, model, number, who=who, why=why, action="promote")


def rollback(registry: Registry, name: str, who: str, why: str) -> Change:
    """Undo the last change that is not undone: the version before becomes the champion again. Raises RegistryError where there is none."""
    model = registry.model(name)
    undone = way_back(changes(model), model.champion)
    if undone is None:
        raise RegistryError(f"{name}: there is no promotion to undo")
    return _change(registry, model, undone.from_, who=who, why=why, action="rollback")


def way_back(record: Sequence[Change], champion: int | None) -> Change | None:
    """The promotion that made `champion` what it is: of those not undone, the last one. Pure."""
    standing: list[Change] = []
    for change in record:
        if change.action == "promote":
            standing.append(change)
        elif standing:
            standing.pop()
    while standing and standing[-1].to != champion:
        standing.pop()  # of a process that died before the alias moved
    return standing[-1] if standing else None


def story(model: Model) -> str | None:
    """A remark where the record does not end with the champion as it is: somebody moved the alias otherwise, or was cut off."""
    record = changes(model)
    last = record[-1].to if record else None
    if last == model.champion:
        return None
    said = "none" if last is None else str(last)
    how = "the alias was moved in MLflow itself, or a promotion was cut off"
    return f"the record ends with {said}, the champion is {model.champion or 'none'}: {how}"


def _change(registry: Registry, model: Model, to: int | None, *, who: str, why: str, action: str) -> Change:
    if not why.strip():
        raise RegistryError("say why: the record is for those who come after")
    now = datetime.now(UTC)
    change = Change(now.isoformat(timespec="seconds").replace("+00:00", "Z"), who, why.strip()[:_MOST_WORDS], action, model.champion, to)
    key = f"{_PREFIX}{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:6]}"
    registry.tag(model.name, key, msgspec.json.encode(change).decode())
    if to is None:
        registry.unpoint(model.name)
    else:
        registry.point(model.name, to)
    return change
