"""How one message that ends the process is found: the arithmetic of marks."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.poison import CRASHES, Mark, again, read, written


def run(count: int, poison: set[int], batch: int) -> tuple[list[int], list[int], int]:
    """Processes one after the other over messages 0…count-1, as the loop does it: delivered, dead-lettered, processes that ended."""
    delivered: list[int] = []
    refused: list[int] = []
    at, found, ended = 0, None, 0
    while at < count:
        assert ended < 40 * (len(poison) + 1), "it does not come to an end"
        died = False
        while at < count and not died:
            if found is not None and found.is_poison:
                refused.append(at)
                at, found = at + 1, found.behind_poison
                continue
            left, piece = (min(batch, count - at), batch) if found is None else (min(found.messages, count - at), found.attempt)
            while left > 0 and not died:
                taken = range(at, at + min(piece, left))
                if poison.intersection(taken):
                    found, died, ended = again(found, len(taken)), True, ended + 1
                else:
                    delivered += taken
                    at, left = at + len(taken), left - len(taken)
            if not died:
                found = None
    return delivered, refused, ended


@given(st.integers(1, 5000), st.sets(st.integers(0, 4999), max_size=4), st.sampled_from([1, 7, 1000, 25_000]))
def test_exactly_the_poison_is_refused_after_three_crashes_alone(count: int, positions: set[int], batch: int) -> None:
    poison = {position for position in positions if position < count}
    delivered, refused, ended = run(count, poison, batch)
    assert refused == sorted(poison)
    assert delivered == [n for n in range(count) if n not in poison]
    assert CRASHES * len(poison) <= ended <= (CRASHES + 6) * len(poison)


def test_a_mark_that_is_no_mark_is_none() -> None:
    assert read(written(Mark(25_000, 2, 1))) == Mark(25_000, 2, 1)
    for text in (
        "",
        "something else",
        "5",
        '{"messages": 0, "crashes": 1}',
        '{"messages": -1, "crashes": 1}',
        '{"messages": "1"}',
        "\ud800",
    ):
        assert read(text) is None, text


def test_a_message_alone_is_refused_at_its_third_crash_alone_and_not_before() -> None:
    mark = again(Mark(4, 7), 1)
    assert [mark, again(mark, 1), again(again(mark, 1), 1)] == [Mark(1, 1), Mark(1, 2), Mark(1, 3)]
    assert [Mark(1, n).is_poison for n in range(5)] == [False, False, False, True, True]
    assert not Mark(2, 100).is_poison


def test_where_every_message_is_the_end_it_is_the_service_that_is_wrong() -> None:
    mark, refused = Mark(1, CRASHES), 0
    while mark.is_poison and refused < 1000:
        mark, refused = mark.behind_poison, refused + 1
        while not mark.is_poison and mark.crashes < CRASHES:
            mark = again(mark, 1)
    assert refused == 20
