"""When each event is due. Pure."""

import re
from collections.abc import Callable, Sequence

from producers.cdnow.purchases import Purchase

GENTLE = "20"
Due = Callable[[int], float]  # from an event's place to the seconds since the beginning at which it is due


class NoSpeed(Exception):
    """What was given is no speed."""


_SPEED = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>|events|days)")


def pace(speed: str, purchases: Sequence[Purchase], first: int) -> Due:
    """When each of `purchases` from place `first` on is due at `speed`. Raises NoSpeed where it is none."""
    if speed == "max":
        return lambda _: 0.0
    match = _SPEED.fullmatch(GENTLE if speed == "gentle" else speed)
    number = float(match["number"]) if match else 0.0
    if not match or not number:
        raise NoSpeed(f"{speed!r} is no speed: use gentle, max, events a second such as 50, or days a second such as 7days")
    if match["unit"] != "days":
        return lambda place: (place - first) / number
    begin = purchases[first].day if first < len(purchases) else None
    return lambda place: (purchases[place].day - begin).days / number if begin else 0.0
