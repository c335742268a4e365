"""The CDNOW purchases as events. Pure but for reading the one file."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import orjson

SOURCE = "cdnow"


class BadData(Exception):
    """The data file cannot be used; the text says why, and where."""


class Purchase(NamedTuple):
    """One line of the file. `number` counts lines from 1, without the heading; it makes the event's id."""

    number: int
    customer_id: str
    day: date
    quantity: int
    amount_usd: float

    @property
    def id(self) -> str:
        """The event's id: the same each time the same line is sent."""
        return f"cdnow-{self.number:06}"

    @property
    def time(self) -> str:
        """The event's time. The data has days only: it is midnight UTC."""
        return f"{self.day.isoformat()}T00:00:00Z"

    @property
    def data(self) -> Mapping[str, int | float]:
        """The event's data."""
        return {"quantity": self.quantity, "amount_usd": self.amount_usd}

    def event(self) -> bytes:
        """The purchase as the JSON text of a CloudEvent."""
        return orjson.dumps(
            {
                "specversion": "1.0",
                "id": self.id,
                "source": SOURCE,
                "type": "purchase",
                "time": self.time,
                "subject": self.customer_id,
                "data": self.data,
            }
        )


def read_purchases(path: Path) -> list[Purchase]:
    """All purchases of `path` by date, those of one day in the order of the file. Raises BadData."""
    try:
        lines = path.read_text("ascii").splitlines()[1:]
    except OSError as error:
        raise BadData(f"{path}: {error.strerror}: `make up` fetches it") from None
    except UnicodeDecodeError as error:
        raise BadData(f"{path}: {error}") from None
    return sorted((_purchase(path, number, line) for number, line in enumerate(lines, start=1)), key=lambda each: each.day)


def _purchase(path: Path, number: int, line: str) -> Purchase:
    try:
        customer, day, quantity, amount = line.split()
        return Purchase(number, customer, date(int(day[:4]), int(day[4:6]), int(day[6:])), int(quantity), float(amount))
    except ValueError:
        raise BadData(f"{path}, line {number + 1}: expected customer, yyyymmdd, items and dollars, found {line[:80]!r}") from None
