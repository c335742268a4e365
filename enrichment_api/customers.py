"""The customers' states in memory: about 50 bytes a customer, looked up a batch at a time. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from headrace.features import ABSENT, STATE

Key = tuple[str, str]  # source and customer_id
Columns = tuple[Iterable[Key], NDArray[Any]]  # the keys of some customers, and an array of what there is of each (a STATE)


class States(Protocol):
    """Where states are looked up. `available` says whether the last `states` could be read: what is ABSENT otherwise is not known to be."""

    @property
    def available(self) -> bool: ...
    def __len__(self) -> int: ...
    def states(self, keys: Sequence[Key]) -> NDArray[Any]:
        """The state of each customer, `ABSENT` where there is none."""


class Customers:
    """An unchanging snapshot of `lake.gold.customer_features`.

    Keys are kept as Python's 64-bit hashes, whose seed differs in each process: two customers sharing one is as likely as
    2⁻⁶⁴ for each pair, and cannot be brought about from outside.
    """

    available = True

    def __init__(self, hashes: NDArray[np.int64], states: NDArray[Any]) -> None:
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._states = np.append(states[order], ABSENT)  # the last one is what index -1 gives

    @classmethod
    def none(cls) -> Self:
        """A snapshot without any customer."""
        return cls(np.empty(0, np.int64), np.empty(0, STATE))

    @classmethod
    def of(cls, parts: Iterable[Columns]) -> Self:
        """A snapshot of all customers in `parts`."""
        hashes, states = [np.empty(0, np.int64)], [np.empty(0, STATE)]
        for keys, part in parts:
            hashes.append(np.fromiter(map(hash, keys), np.int64, len(part)))
            states.append(part)
        return cls(np.concatenate(hashes), np.concatenate(states))

    def __len__(self) -> int:
        return len(self._hashes)

    def states(self, keys: Sequence[Key]) -> NDArray[Any]:
        """The state of each customer, `ABSENT` where there is none."""
        if not len(self):
            return np.full(len(keys), ABSENT)
        wanted = np.fromiter(map(hash, keys), np.int64, len(keys))
        at = np.minimum(np.searchsorted(self._hashes, wanted), len(self) - 1)
        return self._states[np.where(self._hashes[at] == wanted, at, -1)]
