"""The record of promotions: which one a rollback undoes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.promotion import Change, way_back


def change(action: str, from_: int | None, to: int | None) -> Change:
    return Change("2026-11-22T12:00:00Z", "me", "why", action, from_, to)


@pytest.mark.parametrize(
    ("record", "champion", "undone"),
    [
        ([], None, None),
        ([("promote", None, 1)], 1, 0),
        ([("promote", None, 1), ("promote", 1, 2)], 2, 1),
        ([("promote", None, 1), ("promote", 1, 2), ("rollback", 2, 1)], 1, 0),
        ([("promote", None, 1), ("rollback", 1, None)], None, None),
        ([("promote", None, 1), ("promote", 1, 2)], 1, 0),  # cut off before the alias moved
        ([("promote", None, 1)], 7, None),  # moved in MLflow itself
    ],
)
def test_the_last_that_stands_is_undone(record: list[tuple[str, int | None, int | None]], champion: int | None, undone: int | None) -> None:
    changes = [change(*each) for each in record]
    assert way_back(changes, champion) == (None if undone is None else changes[undone])


@given(st.lists(st.integers(1, 50), min_size=1, max_size=20, unique=True))
def test_as_many_rollbacks_as_promotions_lead_back_to_nothing(versions: list[int]) -> None:
    record: list[Change] = []
    champion: int | None = None
    for version in versions:
        record.append(change("promote", champion, version))
        champion = version
    seen = []
    while (undone := way_back(record, champion)) is not None:
        record.append(change("rollback", champion, undone.from_))
        champion = undone.from_
        seen.append(champion)
    assert seen == [*versions[-2::-1], None]
