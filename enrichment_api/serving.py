"""What serves now: the versions of a model that a release has in memory, and who is scored by which."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from enrichment_api.cache import Scores
from enrichment_api.guard import Broken, Guard
from enrichment_api.model import Card
from enrichment_api.release import CHAMPION, Recreate, Release, Shares, bounds_of, bucket, digest, seed, variant_at
from enrichment_api.release import Shadow as ShadowRelease
from enrichment_api.shadow import Shadow
from headrace.errors import in_a_line
from headrace.features import MODEL

_BY = ["model", "variant", "version"]
_events = Counter("enrichment_api_variant_events_total", "Events scored, by the variant that scored them", _BY)
_errors = Counter("enrichment_api_variant_errors_total", "Events that a challenger could not score, so the champion did", _BY)
_seconds = Histogram(
    "enrichment_api_variant_seconds",
    "Time of a call of a variant's model",
    _BY,
    buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5),
)
_share = Gauge("enrichment_api_variant_share", "Share of the subjects that a variant serves", _BY)
_returned = Counter(
    "enrichment_api_returned_total", "Variants whose subjects returned to the champion, by the bound broken", ["variant", "why"]
)

_log = structlog.get_logger()


class Event(Protocol):
    """What is known of an event here."""

    @property
    def id(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def subject(self) -> str | None: ...


class Variant(NamedTuple):
    """A version in a release, under the name that it has there."""

    name: str
    version: str


class Standing(msgspec.Struct, frozen=True):
    """A variant as /v1/models and /readyz show it. `returned` is the bound that it broke."""

    variant: str
    version: str
    share: float
    returned: Broken | None = None


class _Arm:
    """A variant with its model, its guard and its counters, looked up once."""

    def __init__(self, name: str, model: Scores, guard: Guard | None) -> None:
        self.of, self.model, self.guard = Variant(name, model.card.version), model, guard
        labels = (model.card.model, name, model.card.version)
        self.events, self.errors, self.seconds = _events.labels(*labels), _errors.labels(*labels), _seconds.labels(*labels)


class Serving:
    """A release with its models. It stays as it is, but for variants that break a bound: their subjects return to the champion.

    Asked by one thread at a time; `put_back` may come from another.
    """

    def __init__(
        self,
        release: Release,
        models: Mapping[str, Scores],
        shadow: Shadow | None = None,
        *,
        returned: Mapping[str, Broken] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        bounds = bounds_of(release)
        self.release, self.digest = release, digest(release)
        self.models: dict[str, Scores] = {variant: models[variant] for variant in release.folders()}
        self._now, self._clock = now, clock
        self._seed = seed(MODEL, release)
        self._champion, *challengers = (_Arm(name, model, None) for name, model in self.models.items())
        self._arms = {self._champion.of.name: self._champion}
        for arm in challengers:
            arm.guard = Guard(bounds, (returned or {}).get(arm.of.name)) if bounds else None
            self._arms[arm.of.name] = arm
        self._shadow = shadow if isinstance(release, ShadowRelease) else None

    @classmethod
    def alone(cls, model: Scores, variant: str = CHAMPION) -> "Serving":
        """One model for everybody, without a release file."""
        return cls(Recreate(champion="."), {variant: model})

    @property
    def card(self) -> Card:
        """That of the version to which everybody returns."""
        return self._champion.model.card

    @property
    def cards(self) -> list[Card]:
        """Those of all versions in memory."""
        return list({model.card.version: model.card for model in self.models.values()}.values())

    @property
    def returned(self) -> dict[str, Broken]:
        """The variants that broke a bound."""
        return {name: arm.guard.broken for name, arm in self._arms.items() if arm.guard and arm.guard.broken}

    def standings(self) -> list[Standing]:
        """Each variant as it stands now."""
        shares = dict.fromkeys(self._arms, 0.0)
        returned = self.returned
        for name, share in self.release.shares(self._now()):
            shares[self._champion.of.name if name in returned else name] += share
        return [Standing(name, arm.of.version, round(shares[name], 6), returned.get(name)) for name, arm in self._arms.items()]

    def put_back(self, variant: str, why: Broken) -> None:
        """Return a variant's subjects to the champion: what another copy of the API found, or this one before its restart."""
        guard = self._arms[variant].guard if variant in self._arms else None
        if guard and not guard.broken:
            guard.broken = why
            self._say(variant, why)

    def measure(self) -> None:
        """Set the gauges of the shares."""
        _share.clear()
        for standing in self.standings():
            _share.labels(self.card.model, standing.variant, standing.version).set(standing.share)

    def score(self, rows: NDArray[np.float32], events: Sequence[Event]) -> list[tuple[float, Variant] | None]:
        """The score of each row, for the event in its place, and who gave it; None where not even the champion can say.

        What a challenger cannot score, or no probability, is scored by the champion. Raises what the champion's runtime raises.
        """
        by = self._chosen(events)
        if by is None:
            values, served = self._call(self._champion, rows), [self._champion.of] * len(rows)
        else:
            values, served = self._scored_by(by, rows)
        if self._shadow is not None:
            self._offer(self._shadow, rows, events, values)
        sound = _sound(values)
        if sound.all():
            return list(zip(values.tolist(), served, strict=True))
        return [(value, of) if good else None for value, of, good in zip(values.tolist(), served, sound.tolist(), strict=True)]

    def _chosen(self, events: Sequence[Event]) -> NDArray[np.str_] | None:
        """The variant of each event, or None where the champion has them all."""
        shares: Shares = self.release.shares(self._now())
        returned = self.returned
        if all(share == 0 or name == self._champion.of.name or name in returned for name, share in shares):
            return None
        chosen = np.array([variant_at(shares, self._place_of(event)) for event in events])
        chosen[np.isin(chosen, list(returned))] = self._champion.of.name
        return chosen

    def _place_of(self, event: Event) -> float:
        """Where its subject stands; who is nobody in particular is another one with each event."""
        return bucket(self._seed, event.source, event.subject or f"\0{event.id}")

    def _scored_by(self, by: NDArray[np.str_], rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[Variant]]:
        values, served = np.empty(len(rows), np.float32), [self._champion.of] * len(rows)
        left = by == self._champion.of.name
        for name in np.unique(by[~left]):
            places = np.flatnonzero(by == name)
            arm = self._arms[str(name)]
            scored, good = self._try(arm, rows[places])
            values[places[good]] = scored[good]
            left[places[~good]] = True
            for place in places[good].tolist():
                served[place] = arm.of
        if left.any():
            values[left] = self._call(self._champion, rows[left])
        return values, served

    def _call(self, arm: _Arm, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        began = self._clock()
        values = arm.model.score(rows)
        arm.seconds.observe(self._clock() - began)
        arm.events.inc(len(rows))
        return values

    def _try(self, arm: _Arm, rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The scores of a challenger and which of them are any. Its failure is not that of the request."""
        began = self._clock()
        try:
            values = arm.model.score(rows)
            good = _sound(values)
        except Exception as error:  # of whatever kind: what a model's file can do is not known
            values, good = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.bool_)
            why = in_a_line(error)
            _log.warning("a challenger failed, the champion scores its events", variant=arm.of.name, version=arm.of.version, why=why)
        now = self._clock()
        errors = len(rows) - int(good.sum())
        arm.seconds.observe(now - began)
        arm.events.inc(len(rows) - errors)
        arm.errors.inc(errors)
        broken = arm.guard.saw(now, now - began, len(rows), errors) if arm.guard else None
        if broken:
            self._say(arm.of.name, broken)
        return values, good

    def _say(self, variant: str, why: Broken) -> None:
        _returned.labels(variant, why.value).inc()
        version = self._arms[variant].of.version
        _log.error("a variant broke its bound: the champion serves its subjects", variant=variant, version=version, bound=why.value)

    def _offer(self, shadow: Shadow, rows: NDArray[np.float32], events: Sequence[Event], values: NDArray[np.float32]) -> None:
        assert isinstance(self.release, ShadowRelease)  # noqa: S101 - for mypy
        share, places = self.release.share, list(range(len(events)))
        if share < 1:
            places = [place for place in places if self._place_of(events[place]) < share]
        if places:
            _, challenger = self.models.values()
            keys = [(events[place].source, events[place].id) for place in places]
            shadow.offer(challenger, self.card.version, rows[places], keys, values[places])


def _sound(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which are probabilities."""
    sound: NDArray[np.bool_] = (values >= 0) & (values <= 1)  # False for what is not a number
    return sound


def in_words(release: Release) -> str:
    """The strategy's name, as the file has it."""
    return str(msgspec.to_builtins(release)["strategy"])
