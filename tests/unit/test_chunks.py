"""Values some at a time: who asks with each gets all of them, in their order."""

from hypothesis import given
from hypothesis import strategies as st

from cli.chunks import chunks


@given(st.lists(st.text()), st.integers(1, 9))
def test_all_are_there_in_order_and_only_the_last_may_be_smaller(values: list[str], size: int) -> None:
    made = chunks(values, size)
    assert [value for some in made for value in some] == values
    assert all(len(some) == size for some in made[:-1])
    assert all(made)


def test_of_nothing_there_is_no_chunk() -> None:
    """Erasing a person without letters is still one question: `chunks(...) or [[]]`."""
    assert chunks([], 5) == []
    assert not chunks([], 5)
