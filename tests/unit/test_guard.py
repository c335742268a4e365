"""When a variant has to go: the guard beside an oracle that keeps everything and counts anew."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from enrichment_api.guard import SLICES, Broken, Guard
from enrichment_api.release import Bounds

bounds = st.builds(
    Bounds,
    error_rate=st.sampled_from([0.0, 0.01, 0.1, 0.5]),
    p99_ms=st.sampled_from([1.0, 10.0]),
    window_seconds=st.sampled_from([1.0, 60.0]),
    min_calls=st.sampled_from([1, 5, 100]),
)
calls = st.lists(
    st.tuples(st.floats(0, 2), st.sampled_from([0.0005, 0.001, 0.005, 0.02]), st.integers(1, 1000), st.floats(0, 1)).map(
        lambda call: (call[0], call[1], call[2], int(call[2] * call[3] ** 8))  # few errors, mostly
    ),
    max_size=300,
)


def _p99(seconds: list[float]) -> float:
    """The nearest-rank percentile, as the books have it."""
    return sorted(seconds)[ceil(0.99 * len(seconds) - 1e-9) - 1]


@given(bounds, calls)
def test_it_breaks_where_the_window_says_so_and_never_before(bounds: Bounds, calls: list[tuple[float, float, int, int]]) -> None:
    guard, now, seen, width = Guard(bounds), 1000.0, [], bounds.window_seconds / SLICES
    for gap, seconds, events, errors in calls:
        now += gap
        seen.append((now, seconds, events, errors))
        window = [call for call in seen if int(call[0] // width) > int(now // width) - SLICES]
        expected = None
        if len(window) >= bounds.min_calls:
            if sum(call[3] for call in window) > bounds.error_rate * sum(call[2] for call in window):
                expected = Broken.ERRORS
            elif _p99([call[1] for call in window]) * 1000 > bounds.p99_ms:
                expected = Broken.LATENCY
        assert guard.saw(now, seconds, events, errors) == expected
        if expected:
            assert guard.saw(now, 0, 1, 0) is None  # it says so once,
            assert guard.broken == expected  # and stays so
            return
        assert guard.broken is None


@given(bounds, st.lists(st.floats(0, 100), max_size=100))
def test_who_keeps_the_bounds_stays(bounds: Bounds, gaps: list[float]) -> None:
    guard, now = Guard(bounds), 0.0
    for gap in gaps:
        now += gap
        guard.saw(now, bounds.p99_ms / 1000, 1000, 0)
    assert guard.broken is None


def test_what_was_long_ago_counts_no_more() -> None:
    guard = Guard(Bounds(error_rate=0.1, window_seconds=60, min_calls=10))
    for n in range(9):
        guard.saw(n / 10, 0.001, 1, 1)  # nine bad calls: one too few to judge
    for n in range(1000):
        guard.saw(61 + n, 0.001, 1, 0)
    assert guard.broken is None


@given(calls)
def test_its_memory_does_not_grow_with_the_load(calls: list[tuple[float, float, int, int]]) -> None:
    guard, now = Guard(Bounds(error_rate=1, p99_ms=1e9)), 0.0
    for gap, seconds, events, errors in calls * 3:
        now += gap
        guard.saw(now, seconds, events, errors)
        assert len(guard._slices) <= SLICES
