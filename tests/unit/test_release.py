"""Releases: what a file may say, who gets which variant, and that it stays so."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from enrichment_api.release import Canary, Recreate, Release, ReleaseError, Rolling, bucket, digest, parse, seed, variant_at

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TWO: dict[str, Any] = {"champion": "v1", "challenger": "v2"}
shares = st.floats(0, 1)
names = st.text(min_size=1, max_size=50)


def _one(**said: Any) -> Release:
    return parse(yaml.safe_dump({"repurchase": said}).encode())["repurchase"]


def _canary(share: float, **more: Any) -> Canary:
    found = _one(strategy="canary", share=share, **TWO, **more)
    assert isinstance(found, Canary)
    return found


@pytest.mark.parametrize(
    ("said", "folders", "expected"),
    [
        ({"strategy": "recreate", "champion": "v1"}, {"champion": "v1"}, {"champion": 1}),
        ({"strategy": "blue_green", "blue": "v1", "green": "v2", "live": "green"}, {"green": "v2", "blue": "v1"}, {"green": 1}),
        ({"strategy": "shadow", **TWO}, TWO, {"champion": 1}),
        ({"strategy": "canary", "share": 0.05, **TWO}, TWO, {"challenger": 0.05, "champion": 0.95}),
        (
            {"strategy": "rolling", "starts_at": NOW - timedelta(seconds=25), "seconds": 100, **TWO},
            TWO,
            {"challenger": 0.25, "champion": 0.75},
        ),
        (
            {"strategy": "ab", "champion": "v1", "challengers": {"b": {"model": "v2", "share": 0.25}, "c": {"model": "v3", "share": 0.25}}},
            {"champion": "v1", "b": "v2", "c": "v3"},
            {"b": 0.25, "c": 0.25, "champion": 0.5},
        ),
    ],
)
def test_each_strategy_says_who_serves_whom(said: dict[str, Any], folders: dict[str, str], expected: dict[str, float]) -> None:
    release = _one(**said)
    assert list(release.folders().items()) == list(folders.items())  # the first is where everybody returns to
    assert dict(release.shares(NOW)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("repurchase: {strategy: canary, champion: a}", "missing required field `challenger`"),
        ("repurchase: {strategy: canary, champion: a, challenger: b, share: 5}", "<= 1.0 - at `$[...].share`"),
        ("repurchase: {strategy: canary, champion: a, challenger: b, share: .nan}", "share"),
        ("repurchase: {strategy: cannary, champion: a}", "Invalid value 'cannary'"),
        ("repurchase: {strategy: recreate, champion: a, shares: 1}", "unknown field `shares`"),
        ("repurchase: {strategy: rolling, champion: a, challenger: b, seconds: 9, starts_at: 2026-11-22 10:00:00}", "timezone"),
        ("repurchase: {strategy: recreate, champion: a}\nrepurchase: {strategy: recreate, champion: b}", "'repurchase' stands there twice"),
        ("repurchase: {strategy: ab, champion: a, challengers: {b: {model: b, share: .6}, c: {model: c, share: .6}}}", "more than 1"),
        ("repurchase: {strategy: ab, champion: a, challengers: {champion: {model: b, share: .6}}}", "cannot be called 'champion'"),
        ("repurchase: {strategy: ab, champion: a, challengers: {}}", "length >= 1"),
        ("repurchase: [", "not a release file"),
        ("? [a]\n: b", "not a release file"),
        ("\x00", "not a release file"),
        ("", "Expected `object`"),
        ("!!python/object:os.system {}", "not a release file"),
        ("a: &a [" + "x," * 50_000 + "]", "at most 100000"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ReleaseError) as found:
        parse(text.encode())
    assert said in str(found.value)
    assert "\n" not in str(found.value)


@given(st.binary(max_size=200))
def test_no_bytes_bring_more_than_a_refusal(text: bytes) -> None:
    with suppress(ReleaseError):
        parse(text)


@given(names, st.text(max_size=50), st.text(max_size=50))
def test_a_subject_stands_in_one_place_within_a_release(name: str, source: str, subject: str) -> None:
    place = bucket(name.encode(), source, subject)
    assert 0 <= place < 1
    assert bucket(name.encode(), source, subject) == place


def test_the_place_of_a_subject_never_changes() -> None:
    """Over processes and versions of this code: who was served by a challenger yesterday is today."""
    assert [bucket(b"r-1", "shop", f"c-{n}") for n in range(3)] == [0.41711537253562236, 0.9272783019002323, 0.44056896127888934]


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_source_and_subject_are_told_apart(source: str, subject: str, other: str, another: str) -> None:
    same = (source, subject) == (other, another)
    assert (bucket(b"r", source, subject) == bucket(b"r", other, another)) == same


@given(shares, shares, st.lists(names, min_size=1, max_size=50))
def test_a_growing_share_takes_nobody_back(one: float, other: float, subjects: list[str]) -> None:
    small, large = sorted((one, other))
    before, after = _canary(small), _canary(large)
    assert seed("repurchase", before) == seed("repurchase", after)
    for subject in subjects:
        place = bucket(seed("repurchase", before), "shop", subject)
        if variant_at(before.shares(NOW), place) == "challenger":
            assert variant_at(after.shares(NOW), place) == "challenger"


@settings(max_examples=30)
@given(st.sampled_from([0.0, 0.01, 0.05, 0.5, 0.95, 1.0]), names)
def test_a_share_of_the_subjects_is_that_share(share: float, name: str) -> None:
    release, people = _canary(share, name=name), 2_000
    counts = Counter(variant_at(release.shares(NOW), bucket(seed("repurchase", release), "shop", f"c-{n}")) for n in range(people))
    apart = 6 * (people * share * (1 - share)) ** 0.5  # six standard deviations
    assert abs(counts["challenger"] - people * share) <= apart


def test_the_next_release_tries_its_challenger_on_others() -> None:
    """Else the same people would be the first for ever: of those with a variant in one release, half have it in the next."""
    first, second = (seed("repurchase", _canary(0.5, name=name)) for name in ("spring", "summer"))
    both = sum(bucket(first, "shop", f"c-{n}") < 0.5 and bucket(second, "shop", f"c-{n}") < 0.5 for n in range(10_000))
    assert 2_250 < both < 2_750


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
def test_a_rolling_release_goes_from_nobody_to_everybody(after: float, seconds: float) -> None:
    release = Rolling(**TWO, starts_at=NOW, seconds=seconds)
    at = dict(release.shares(NOW + timedelta(seconds=after)))
    later = dict(release.shares(NOW + timedelta(seconds=after + 1)))
    assert at["challenger"] + at["champion"] == pytest.approx(1)
    assert 0 <= at["challenger"] <= later["challenger"] <= 1
    assert after > 0 or at["challenger"] == 0
    assert after < seconds + 1e-5 or at["challenger"] == 1


def test_a_digest_says_whether_anything_was_changed() -> None:
    assert digest(_canary(0.05)) == digest(_canary(0.05))
    edited: list[Release] = [_canary(0.06), _canary(0.05, name="x"), _canary(0.05, bounds={"p99_ms": 20})]
    edited += [Recreate(champion="v1"), Recreate(champion="v2"), _canary(0.05)]
    assert len({digest(release) for release in edited}) == 6


def test_a_release_says_its_strategy() -> None:
    assert msgspec.to_builtins(_canary(0.05))["strategy"] == "canary"
