"""Which version of a model serves whom, as a release file says it: read, checked, and asked. Pure.

    repurchase:                              # the model, as events call its enrichment
      strategy: canary
      champion: repurchase/2026-11-21-952ec8e6   # the folder of a version, from the folder of this file
      challenger: repurchase/2026-12-01-0c4f11aa
      share: 0.05

docs/serving.md has every strategy.
"""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b, sha256
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import yaml

CHAMPION, CHALLENGER = "champion", "challenger"
MAX_BYTES = 100_000  # of a release file
MAX_VARIANTS = 8  # each is a model in memory

_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=30 * 86_400)]
_Folder = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
_Variant = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,49}$")]

Shares: TypeAlias = tuple[tuple[str, float], ...]  # variant and its share of the subjects; they add up to 1, the champion's comes last


class Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a variant has to keep within a sliding window, or everybody returns to the champion."""

    error_rate: _Share = 0.01  # of its events
    p99_ms: Annotated[float, msgspec.Meta(gt=0)] = 50.0  # of its calls, whatever the number of events in one
    window_seconds: _Seconds = 60.0
    min_calls: Annotated[int, msgspec.Meta(ge=1)] = 100  # fewer in a window say nothing


class _Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="strategy"):
    name: _Name | None = None  # with the subject it decides who gets which variant; without it, the folders do

    def folders(self) -> dict[str, str]:
        """The folder of each variant; the first one is where everybody returns to."""
        raise NotImplementedError

    def shares(self, now: datetime) -> Shares:
        """Who of the subjects gets which variant at `now`."""
        del now
        return ((next(iter(self.folders())), 1.0),)


class Recreate(_Release, frozen=True, tag="recreate"):
    """The champion serves everybody. Another one takes its place from one request to the next, once it is loaded."""

    champion: _Folder

    def folders(self) -> dict[str, str]:
        return {CHAMPION: self.champion}


class _TwoVersions(_Release, frozen=True):
    champion: _Folder
    challenger: _Folder

    def folders(self) -> dict[str, str]:
        return {CHAMPION: self.champion, CHALLENGER: self.challenger}


class Rolling(_TwoVersions, frozen=True, tag="rolling"):
    """The challenger's share grows from nothing at `starts_at` to everybody `seconds` later; who has it keeps it.

    The file says when, and not the process: all copies of the API agree, and a restart does not begin anew.
    """

    starts_at: Annotated[datetime, msgspec.Meta(tz=True)]
    seconds: _Seconds
    bounds: Bounds = Bounds()

    def shares(self, now: datetime) -> Shares:
        share = min(1.0, max(0.0, (now - self.starts_at).total_seconds() / self.seconds))
        return ((CHALLENGER, share), (CHAMPION, 1 - share))


class BlueGreen(_Release, frozen=True, tag="blue_green"):
    """One of two serves everybody; the other is kept loaded and warm, so that changing `live` changes it at once."""

    blue: _Folder
    green: _Folder
    live: Literal["blue", "green"]

    def folders(self) -> dict[str, str]:
        both = {"blue": self.blue, "green": self.green}
        return {self.live: both.pop(self.live), **both}


class Shadow(_TwoVersions, frozen=True, tag="shadow"):
    """The champion serves everybody. The challenger scores the same events (of `share` of the subjects) beside it; nobody is told."""

    share: _Share = 1.0


class Canary(_TwoVersions, frozen=True, tag="canary"):
    """The challenger serves `share` of the subjects, until it breaks a bound."""

    share: _Share
    bounds: Bounds = Bounds()

    def shares(self, now: datetime) -> Shares:
        del now
        return ((CHALLENGER, self.share), (CHAMPION, 1 - self.share))


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One challenger of several."""

    model: _Folder
    share: _Share


class Ab(_Release, frozen=True, tag="ab"):
    """Each challenger serves its share of the subjects, the champion all others: to compare what comes of it."""

    champion: _Folder
    challengers: Annotated[dict[_Variant, Arm], msgspec.Meta(min_length=1, max_length=MAX_VARIANTS - 1)]
    bounds: Bounds = Bounds()

    def folders(self) -> dict[str, str]:
        return {CHAMPION: self.champion} | {variant: arm.model for variant, arm in self.challengers.items()}

    def shares(self, now: datetime) -> Shares:
        del now
        given = [(variant, arm.share) for variant, arm in self.challengers.items()]
        return (*given, (CHAMPION, max(0.0, 1 - sum(share for _, share in given))))


Release: TypeAlias = Recreate | Rolling | BlueGreen | Shadow | Canary | Ab


class ReleaseError(Exception):
    """A release file, or a model that it names, cannot be used; the message is one sentence for a person."""


class _UniqueKeys(yaml.SafeLoader):
    """Of two releases of one model, YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for at, key in enumerate(keys) if key in keys[:at]]
        if twice:
            raise yaml.YAMLError(f"{twice[0]!r} stands there twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def parse(text: bytes) -> dict[str, Release]:
    """The releases in a release file, by model. Raises ReleaseError."""
    if len(text) > MAX_BYTES:
        raise ReleaseError(f"{len(text)} bytes: a release file has at most {MAX_BYTES}")
    try:
        releases = msgspec.convert(yaml.load(text, _UniqueKeys), dict[str, Release])  # noqa: S506 - derived from SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:  # msgspec's are ValueErrors
        raise ReleaseError(f"not a release file: {' '.join(str(error).split())} (see docs/serving.md)") from None
    for model, release in releases.items():
        if isinstance(release, Ab):
            if sum(arm.share for arm in release.challengers.values()) > 1 + 1e-9:
                raise ReleaseError(f"{model}: the challengers' shares add up to more than 1")
            if CHAMPION in release.challengers:
                raise ReleaseError(f"{model}: a challenger cannot be called {CHAMPION!r}")
    return releases


def digest(release: Release) -> str:
    """What is another whenever anything in the release is."""
    return sha256(msgspec.json.encode(release, order="deterministic")).hexdigest()[:16]


def seed(model: str, release: Release) -> bytes:
    """What decides, with a subject, who gets which variant: the same while shares change, another in the next release."""
    return (release.name or "\0".join((model, *sorted(release.folders().values())))).encode()


def bucket(seed: bytes, source: str, subject: str) -> float:
    """Where a subject stands between 0 and 1 (exclusive): always there within one release, anywhere in another."""
    person = f"{len(source)}:{source}{subject}".encode(errors="surrogatepass")
    found = blake2b(person, digest_size=8, key=seed[:64] if len(seed) <= 64 else sha256(seed).digest())
    return (int.from_bytes(found.digest(), "big") >> 11) / 2**53  # as many bits as a float has: never 1.0


def variant_at(shares: Shares, place: float) -> str:
    """The variant of who stands at `place`. A share that grows takes people from the champion alone, where there is one challenger."""
    upper = 0.0
    for variant, share in shares:
        upper += share
        if place < upper:
            return variant
    return shares[-1][0]


def bounds_of(release: Release) -> Bounds | None:
    """What its challengers have to keep, where anybody is served by one."""
    return release.bounds if isinstance(release, Rolling | Canary | Ab) else None


def variants_in(releases: Mapping[str, Release]) -> int:
    """How many models that is in memory."""
    return sum(len(release.folders()) for release in releases.values())
