"""What serves: real models in ONNX under each strategy, and what is done with a release file that changes."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml

from enrichment_api.guard import Broken
from enrichment_api.model import Model, ModelError
from enrichment_api.release import ReleaseError, parse
from enrichment_api.serving import Serving
from enrichment_api.shadow import Shadow
from enrichment_api.watch import Watch
from headrace.features import FEATURES
from tests import models

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TWO: dict[str, Any] = {"champion": "v1", "challenger": "v2"}
PEOPLE = 2_000


@dataclass(frozen=True)
class Asked:
    id: str
    source: str = "shop"
    subject: str | None = None


EVENTS = [Asked(f"e-{n}", subject=f"c-{n}") for n in range(PEOPLE)]


def rows(count: int = PEOPLE, quantity: float = 1) -> Any:
    found = np.zeros((count, len(FEATURES)), np.float32)
    found[:, 0] = quantity
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v1, v2 and v3 answer 0.25, 0.5 and 0.75; the others fail or give nonsense for a quantity above 100."""
    folder = tmp_path_factory.mktemp("versions")
    for version, model in {
        "v1": models.constant(0.25),
        "v2": models.constant(0.5),
        "v3": models.constant(0.75),
        "raising": models.fails_for_large_quantities(0.5, 100),
        "nonsense": models.nonsense_for_large_quantities(0.5, 100),
    }.items():
        models.release(folder, version, model)
    return folder


def serving(folder: Path, shadow: Shadow | None = None, now: datetime = NOW, **said: Any) -> Serving:
    release = parse(yaml.safe_dump({"repurchase": said}).encode())["repurchase"]
    loaded = {variant: Model.load(folder / version) for variant, version in release.folders().items()}
    return Serving(release, loaded, shadow, now=lambda: now)


def scored(of: Serving, quantity: float = 1) -> Counter[tuple[str, str, float]]:
    found = of.score(rows(quantity=quantity), EVENTS)
    assert len(found) == PEOPLE
    return Counter((one[1].name, one[1].version, one[0]) for one in found if one)


def test_recreate_and_blue_green_serve_everybody_with_one(folder: Path) -> None:
    assert scored(serving(folder, strategy="recreate", champion="v1")) == {("champion", "v1", 0.25): PEOPLE}
    colours: dict[str, Any] = {"strategy": "blue_green", "blue": "v1", "green": "v2"}
    assert scored(serving(folder, **colours, live="blue")) == {("blue", "v1", 0.25): PEOPLE}
    green = serving(folder, **colours, live="green")
    assert scored(green) == {("green", "v2", 0.5): PEOPLE}
    assert {card.version for card in green.cards} == {"v1", "v2"}  # the other is warm


def test_a_share_is_served_by_the_challenger_and_the_same_people_each_time(folder: Path) -> None:
    of = serving(folder, strategy="canary", share=0.2, **TWO)
    found = scored(of)
    assert found[("challenger", "v2", 0.5)] + found[("champion", "v1", 0.25)] == PEOPLE
    assert 300 < found[("challenger", "v2", 0.5)] < 500
    first, again = (of.score(rows(), EVENTS) for _ in range(2))
    alone = [of.score(rows(1), [event])[0] for event in EVENTS[:100]]
    assert first == again
    assert first[:100] == alone  # who gets what does not depend on who else is asked about


def test_several_challengers_have_their_shares(folder: Path) -> None:
    challengers = {"b": {"model": "v2", "share": 0.3}, "c": {"model": "v3", "share": 0.3}}
    found = scored(serving(folder, strategy="ab", champion="v1", challengers=challengers))
    assert {variant for variant, *_ in found} == {"champion", "b", "c"}
    assert all(500 < count < 900 for count in found.values())


def test_events_without_a_subject_are_spread(folder: Path) -> None:
    of = serving(folder, strategy="canary", share=0.5, **TWO)
    found = Counter(one[1].name for one in of.score(rows(), [Asked(f"e-{n}") for n in range(PEOPLE)]) if one)
    assert 800 < found["challenger"] < 1200


def test_a_rolling_release_follows_the_clock(folder: Path) -> None:
    said: dict[str, Any] = {"strategy": "rolling", "starts_at": NOW, "seconds": 100, **TWO}
    counts = []
    for after in (-5, 0, 20, 50, 100, 500):
        of = serving(folder, now=NOW + timedelta(seconds=after), **said)
        counts.append(scored(of)[("challenger", "v2", 0.5)])
    assert counts[:2] == [0, 0]
    assert 300 < counts[2] < 500
    assert 850 < counts[3] < 1150
    assert counts[4:] == [PEOPLE, PEOPLE]


@pytest.mark.parametrize("bad", ["raising", "nonsense"])
def test_a_challenger_that_fails_costs_no_event_its_score_and_has_to_go(folder: Path, bad: str) -> None:
    of = serving(folder, strategy="canary", share=0.5, champion="v1", challenger=bad, bounds={"min_calls": 3, "p99_ms": 10_000})
    before = scored(of)[("challenger", bad, 0.5)]
    assert before > 0
    assert scored(of, quantity=1000) == {("champion", "v1", 0.25): PEOPLE}
    assert of.returned == {}  # two calls say nothing yet
    assert scored(of, quantity=1000) == {("champion", "v1", 0.25): PEOPLE}
    assert of.returned == {"challenger": Broken.ERRORS}
    assert scored(of) == {("champion", "v1", 0.25): PEOPLE}  # also what it could have scored
    assert [(s.variant, s.share, s.returned) for s in of.standings()] == [
        ("champion", 1.0, None),
        ("challenger", 0.0, Broken.ERRORS),
    ]


def test_a_slow_challenger_has_to_go_and_the_other_stays(folder: Path) -> None:
    challengers = {"b": {"model": "v2", "share": 0.3}, "c": {"model": "v3", "share": 0.3}}
    of = serving(folder, strategy="ab", champion="v1", challengers=challengers, bounds={"min_calls": 5, "p99_ms": 20})
    slow, ticks = of._arms["b"].model, iter(range(10**9))

    class Slow:
        card = slow.card

        def score(self, rows: Any) -> Any:
            for _ in range(30):  # each look at the clock is a millisecond in this test
                next(ticks)
            return slow.score(rows)

    of._clock = lambda: next(ticks) / 1000
    of._arms["b"].model = Slow()
    for _ in range(5):
        assert sum(scored(of).values()) == PEOPLE
    assert of.returned == {"b": Broken.LATENCY}
    after = scored(of)
    assert set(after) == {("champion", "v1", 0.25), ("c", "v3", 0.75)}


def test_a_champion_that_gives_no_probability_gives_no_score(folder: Path) -> None:
    assert serving(folder, strategy="recreate", champion="nonsense").score(rows(2, quantity=1000), EVENTS[:2]) == [None, None]


def test_the_shadow_scores_the_same_events_and_nobody_is_told(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "shadow.jsonl"
    shadow = Shadow(path, 1_000_000)
    of = serving(folder, shadow, strategy="shadow", share=0.5, **TWO)
    assert scored(of) == {("champion", "v1", 0.25): PEOPLE}
    shadow.start()
    while not path.is_file() or not path.read_bytes().endswith(b"\n"):
        pass
    shadow.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert 800 < len(lines) < 1200
    assert {line["id"] for line in lines} <= {event.id for event in EVENTS}
    assert {(line["champion"], line["challenger"], line["champion_score"], line["challenger_score"]) for line in lines} == {
        ("v1", "v2", 0.25, 0.5)
    }
    assert b"c-1" not in path.read_bytes()  # whose event it is


def test_the_shadow_never_grows(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "shadow.jsonl"
    shadow, model = Shadow(path, 10_000), Model.load(folder / "v2")
    for n in range(1_000):  # nobody works yet: the queue is full after 64
        shadow.offer(model, "v1", rows(20), [("shop", f"{n}-{i}") for i in range(20)], np.full(20, 0.25, np.float32))
    assert shadow._queue.qsize() == 64
    shadow.start()
    while shadow._queue.qsize():
        pass
    shadow.stop()
    assert {file.name for file in tmp_path.iterdir()} == {"shadow.jsonl", "shadow.jsonl.1"}
    assert all(file.stat().st_size <= 10_000 for file in tmp_path.iterdir())


# ---- the release file ----


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for version, score in (("v1", 0.25), ("v2", 0.5), ("v3", 0.75)):
        models.release(tmp_path, version, models.constant(score))
    return tmp_path


def write(place: Path, **said: Any) -> None:
    new = place / "new"
    new.write_text(yaml.safe_dump({"repurchase": said}))
    new.rename(place / "release.yaml")


def watch(place: Path) -> Watch:
    return Watch(place / "v1", place / "release.yaml", None, 1)


def test_without_a_file_the_one_model_serves_and_is_replaced_where_it_changes(place: Path) -> None:
    of = watch(place)
    assert (of.serving.card.version, of.refused) == ("v1", None)
    before = of.serving
    of.look()
    assert of.serving is before
    models.release(place, "v1", models.constant(0.9), lambda card: msgspec.structs.replace(card, version="v1-new"))
    of.look()
    assert of.serving.card.version == "v1-new"


def test_each_change_of_the_file_is_followed(place: Path) -> None:
    of = watch(place)
    write(place, strategy="canary", share=0.1, **TWO)
    of.look()
    assert [(s.variant, s.version, s.share) for s in of.serving.standings()] == [("champion", "v1", 0.9), ("challenger", "v2", 0.1)]
    loaded = of.serving.models
    write(place, strategy="canary", share=0.4, **TWO)
    of.look()
    assert of.serving.models == loaded  # a share changes: nothing is loaded
    assert [s.share for s in of.serving.standings()] == [0.6, 0.4]
    write(place, strategy="recreate", champion="v2")
    of.look()
    assert of.serving.models["champion"] is loaded["challenger"]
    (place / "release.yaml").unlink()
    of.look()
    assert [s.version for s in of.serving.standings()] == ["v1"]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("text", "not a release file"),
        ("absent", "v9: no model (No such file or directory)"),
        ("other model", "this API serves repurchase"),
        ("torn", "model.onnx is not the file of model.json"),
        ("no onnx", "model.onnx cannot be loaded"),
        ("nonsense", "gives no probability for each row"),
        ("features", "made for other features"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_old_goes_on(place: Path, harm: str, said: str) -> None:
    write(place, strategy="canary", share=0.1, **TWO)
    of = watch(place)
    before = of.serving
    write(place, strategy="recreate", champion="bad")
    match harm:
        case "text":
            (place / "release.yaml").write_text("repurchase: [")
        case "absent":
            write(place, strategy="recreate", champion="v9")
        case "other model":
            (place / "release.yaml").write_text("churn: {strategy: recreate, champion: v1}")
        case "torn":
            (models.release(place, "bad", models.constant(0.5)) / "model.onnx").write_bytes(models.constant(0.6))
        case "no onnx":
            models.release(place, "bad", b"no model at all")
        case "nonsense":
            models.release(place, "bad", models.constant(7))
        case "features":
            models.release(place, "bad", models.constant(0.5), lambda card: msgspec.structs.replace(card, features=("a",)))
    for _ in range(2):
        of.look()
        assert of.serving is before
        assert said in (of.refused or "")
    with pytest.raises((ModelError, ReleaseError), match=r".+"):
        watch(place)  # at a start nothing could go on
    write(place, strategy="canary", share=0.1, **TWO)
    of.look()
    assert (of.refused, of.serving) == (None, before)
    write(place, strategy="recreate", champion="v3")
    of.look()
    assert (of.refused, of.serving.card.version) == (None, "v3")


def test_a_model_that_comes_after_the_file_is_taken_when_it_is_whole(place: Path) -> None:
    of = watch(place)
    write(place, strategy="recreate", champion="late")
    of.look()
    assert "late: no model" in (of.refused or "")
    models.release(place, "late", models.constant(0.9))
    of.look()
    assert (of.refused, of.serving.card.version) == (None, "late")


def test_who_returned_stays_so_over_a_restart_and_in_other_copies_until_the_release_is_edited(place: Path) -> None:
    models.release(place, "bad", models.nonsense_for_large_quantities(0.5, 100))
    said: dict[str, Any] = {"strategy": "canary", "share": 0.5, "champion": "v1", "challenger": "bad"}
    write(place, **said, bounds={"min_calls": 1, "p99_ms": 10_000})
    first, second = watch(place), watch(place)
    first.serving.score(rows(quantity=1000), EVENTS)
    assert (first.serving.returned, second.serving.returned) == ({"challenger": Broken.ERRORS}, {})
    first.look()
    second.look()
    third = watch(place)
    assert second.serving.returned == third.serving.returned == {"challenger": Broken.ERRORS}
    assert scored(third.serving) == {("champion", "v1", 0.25): PEOPLE}
    write(place, **said, bounds={"min_calls": 2, "p99_ms": 10_000})
    third.look()
    assert third.serving.returned == {}


def test_a_record_of_returns_that_cannot_be_read_or_written_stops_nothing(place: Path) -> None:
    models.release(place, "bad", models.nonsense_for_large_quantities(0.5, 100))
    write(place, strategy="canary", share=0.5, champion="v1", challenger="bad", bounds={"min_calls": 1, "p99_ms": 10_000})
    (place / "release.yaml.returned").mkdir()
    of = watch(place)
    of.serving.score(rows(quantity=1000), EVENTS)
    of.look()
    assert of.refused is None
    assert scored(of.serving) == {("champion", "v1", 0.25): PEOPLE}
