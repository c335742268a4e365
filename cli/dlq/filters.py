"""Which dead letters a command is about. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime

from headrace.dead_letter import DeadLetter

COLUMNS = tuple(DeadLetter.__struct_fields__)  # what the lake has of a letter
_UNITS = {"m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Filter:
    """Each part names the values that a column may have; an empty one lets all pass. Moments have a time zone."""

    service: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    id: tuple[str, ...] = ()  # of the dead letter
    since: datetime | None = None
    until: datetime | None = None

    def values(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The columns that must have one of some values."""
        given = {"service": self.service, "reason": self.reason, "type": self.type, "source": self.source, "dead_letter_id": self.id}
        yield from ((name, values) for name, values in given.items() if values)

    @property
    def columns(self) -> set[str]:
        """What it looks at."""
        return {name for name, _ in self.values()} | ({"rejected_at"} if self.since or self.until else set())

    def said(self) -> dict[str, str]:
        """The parts that are given, as text."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value.isoformat() if isinstance(value, datetime) else ", ".join(value) for name, value in given.items() if value}


def moment(text: str, now: datetime) -> datetime:
    """`2026-01-31`, `2026-01-31T12:00:00Z`, or how long before `now`: `90m`, `6h`, `2d`. Raises ValueError."""
    unit = _UNITS.get(text[-1:])
    if unit and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 8:
        return datetime.fromtimestamp(now.timestamp() - int(text[:-1]) * unit, UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
