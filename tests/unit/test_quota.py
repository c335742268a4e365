"""What a key may send: never more than its rate allows, and never nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.quota import BURST_SECONDS, Bucket, OverQuota, Quota, Rates

steps = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 500)), min_size=1, max_size=60)
rates = st.floats(0.1, 200)


@given(rates, steps)
def test_never_more_than_burst_and_rate(rate: float, steps: list[tuple[float, int]]) -> None:
    burst = rate * BURST_SECONDS
    bucket, now = Bucket(rate, burst), 1000.0
    passed: list[tuple[float, int]] = []
    for wait, amount in steps:
        now += wait
        if bucket.wait(amount, now) == 0:
            bucket.spend(amount)
            passed.append((now, amount))
    for first in range(len(passed)):  # in every stretch of time, not only from the start
        sum_, largest = 0, 0
        for at, amount in passed[first:]:
            sum_, largest = sum_ + amount, max(largest, amount)
            assert sum_ <= max(burst, largest) + rate * (at - passed[first][0]) + 1e-6


@given(rates, steps)
def test_after_the_wait_there_is_room(rate: float, steps: list[tuple[float, int]]) -> None:
    bucket, now = Bucket(rate, rate * BURST_SECONDS), 0.0
    for wait, amount in steps:
        now += wait
        told = bucket.wait(amount, now)
        assert told <= (BURST_SECONDS * rate + 500) / rate
        if told:
            now += told
            assert bucket.wait(amount, now) == pytest.approx(0, abs=1e-6)
        bucket.spend(amount)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_a_clock_that_goes_back_gives_nothing(times: list[float]) -> None:
    bucket = Bucket(1.0, 5.0)
    bucket.wait(5, max(times))
    bucket.spend(5)
    for at in times:
        assert bucket.wait(1, at) == 1.0


def take(quota: Quota, events: int, size: int, now: float) -> int:
    """0 where it passes, else the seconds to wait."""
    try:
        quota.take(events, size, now)
    except OverQuota as over:
        return over.retry_after
    return 0


def test_both_limits_hold_and_a_refused_request_costs_nothing() -> None:
    quota = Quota(Rates(events=10, bytes=1000))
    assert take(quota, 50, 4000, 0) == 0
    assert take(quota, 1, 0, 0) == 1
    assert take(quota, 0, 1001, 0) == 1
    assert take(quota, 0, 3000, 0) == 2
    assert take(quota, 1, 3000, 0) == 2
    assert take(quota, 25, 0, 0) == 3
    assert take(quota, 20, 3000, 2) == 0
    assert take(quota, 1, 0, 2) == 1
    assert "send the same again in 7 s" in str(OverQuota(6.2))


def test_one_limit_alone() -> None:
    assert all(take(Quota(Rates(events=1)), 5, 10**9, 0) == 0 for _ in range(3))
    assert take(Quota(Rates(bytes=1)), 10**9, 5, 0) == 0
    assert all(take(quota, 10**9, 10**9, 0) == 0 for quota in [Quota(Rates())] * 3)


def test_a_request_larger_than_the_burst_passes_and_leaves_a_debt() -> None:
    quota = Quota(Rates(events=10))
    assert take(quota, 500, 0, 0) == 0
    assert take(quota, 1, 0, 0) == 46
    assert take(quota, 1, 0, 45) == 1
    assert take(quota, 1, 0, 46) == 0


def test_each_process_has_its_share() -> None:
    shares = [Quota(Rates(events=10, bytes=1000), share=4) for _ in range(4)]
    passed = sum(take(shares[n % 4], 1, 1, n / 1000) == 0 for n in range(10_000))
    assert 4 * 12 + 10 * 9 <= passed <= 50 + 10 * 10
