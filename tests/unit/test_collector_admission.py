"""Bytes in process are bounded, and given back."""

from contextlib import suppress

import pytest

from collector.admission import Admission
from headrace.dead_letter import Unavailable


def test_requests_share_a_number_of_bytes() -> None:
    admission = Admission(100)
    with admission.request() as first, admission.request() as second:
        first.take(60)
        second.take(30)
        with pytest.raises(Unavailable):
            second.take(11)
        assert admission.bytes == 90  # what did not fit is not counted
        first.take(10)
        assert admission.bytes == 100
    assert admission.bytes == 0


def test_a_request_that_fails_gives_back_what_it_took() -> None:
    admission = Admission(100)
    with suppress(ZeroDivisionError), admission.request() as one:
        one.take(70)
        1 / 0  # noqa: B018
    assert admission.bytes == 0
    with admission.request() as next:
        next.take(100)
