"""Many values, some at a time."""

from collections.abc import Sequence


def chunks(values: Sequence[str], size: int) -> list[list[str]]:
    """`values` in their order, `size` at a time; the last time, what is left. Of no values, none."""
    return [list(values[start : start + size]) for start in range(0, len(values), size)]
