"""What a model learns from: the purchases of a file in CDNOW's format, the customer's state before each, and what came after."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.features import ABSENT, STATE


class BadData(Exception):
    """The data file cannot be used; the text says why, and where."""


class History(NamedTuple):
    """Purchases ordered by time, one element each. `state` is the customer's before the day of the purchase."""

    customer: list[str]
    time: NDArray[np.datetime64]
    quantity: NDArray[np.float64]
    amount_usd: NDArray[np.float64]
    state: NDArray[Any]
    next_purchase_at: NDArray[np.datetime64]  # the customer's next purchase on a later day; NaT where there is none in the data


def read(path: Path) -> History:
    """The purchases of `path`: a heading, then lines of customer, date (yyyymmdd), number of items, dollars. Raises BadData."""
    purchases: list[tuple[str, np.datetime64, float, float]] = []
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    for number, line in enumerate(lines[1:], start=2):
        try:
            customer, date, quantity, amount = line.split()
            day = np.datetime64(f"{date[:4]}-{date[4:6]}-{date[6:]}", "us")
            purchases.append((customer, day, float(quantity), float(amount)))
        except ValueError:
            raise BadData(f"{path}, line {number}: expected customer, yyyymmdd, items and dollars, found {line[:80]!r}") from None
    if not purchases:
        raise BadData(f"{path}: there are no purchases in it")
    purchases.sort(key=lambda purchase: purchase[1])
    customers = [customer for customer, *_ in purchases]
    time, quantities, amounts = (np.array([purchase[column] for purchase in purchases]) for column in (1, 2, 3))
    return History(customers, time, quantities, amounts, *_around(customers, time, quantities, amounts))


def _around(
    customers: list[str], time: NDArray[np.datetime64], quantity: NDArray[np.float64], amount: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.datetime64]]:
    """The state before, and the time of the next purchase after, each purchase (the arguments are ordered by time).

    Purchases of one customer at one time do not know of each other.
    """
    state = np.full(len(customers), ABSENT, dtype=STATE)
    following = np.full(len(customers), np.datetime64("NaT"), dtype="M8[us]")
    earlier: dict[str, list[int]] = {}  # indices of the customer's purchases before the present one
    for i, customer in enumerate(customers):
        mine = earlier.setdefault(customer, [])
        before = [j for j in mine if time[j] < time[i]]
        if before:
            state[i] = (time[before[0]], time[before[-1]], len(before), quantity[before].sum(), amount[before].sum())
        for j in reversed(mine):
            if not np.isnat(following[j]):
                break
            if time[j] < time[i]:
                following[j] = time[i]
        mine.append(i)
    return state, following
