"""Scenario files: what is read, and what is refused with which words."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from ml.errors import BadScenario
from ml.scenario import FOLDER, Scenario, load, model_name, named, unit_name, units

CHURN = named("churn")
FLIGHTS = named("flights")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_scenario_of_ours_is_read_and_named_as_its_file(path: Path) -> None:
    scenario = Scenario.read(path)
    assert scenario.name == path.stem
    assert Scenario.parse(scenario.dump(), "again") == scenario


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("seed: 7", ""), None),
        (("tuning: {trials: 12,", "tuning: {trials: many,"), "`$.tuning.trials`: Expected `int`, got `str`"),
        (("tuning: {trials: 12,", "tuning: {tries: 12,"), "`$.tuning`: Object contains unknown field `tries`"),
        (("model: ml.learners:Blend", "model: Blend"), "`$.model`: Expected `str` matching regex"),
        (("horizon_days: 90", "horizon_days: 0"), "`$.horizon_days`: Expected `float` > 0.0"),
        (
            ("test_from: 1998-01-01", "test_from: 1997-01-01"),
            "`$.split`: tune_from 1997-09-01 < test_from 1997-01-01 < test_until 1998-04-02",
        ),
        (
            ("horizon_days: 90", "horizon_days: 150"),
            "`$.split.tune_from`: no label from 1997-09-01 on is known before test_from 1998-01-01",
        ),
        (
            ("name: churn", "name: churn\nresources: {units: {churn: large}}"),
            "`$.resources.units`: there are units only where there is a `set`",
        ),
        (("name: churn", "name: [churn"), "not YAML: "),
    ],
)
def test_what_is_wrong_is_said_with_its_place(change: tuple[str, str], said: str | None) -> None:
    text = CHURN.read_text().replace(*change)
    if said is None:
        assert Scenario.parse(text, "here").name == "churn"
        return
    with pytest.raises(BadScenario) as refused:
        Scenario.parse(text, "here.yaml")
    assert str(refused.value).startswith(f"here.yaml: {said}")
    assert "\n" not in str(refused.value)


def test_a_scenario_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(BadScenario, match=r"nothing\.yaml: cannot be read \(No such file or directory\); there are churn, flights"):
        Scenario.read(named("nothing"))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ml.nowhere:Boosting", "model: ml.nowhere:Boosting: cannot be imported: No module named 'ml.nowhere'"),
        ("ml.learners:Forest", "model: ml.learners:Forest: the module ml.learners has no Forest"),
    ],
)
def test_code_that_is_not_there_is_said(path: str, said: str) -> None:
    with pytest.raises(BadScenario) as refused:
        load(path, "model")
    assert str(refused.value) == said


def test_a_set_becomes_a_unit_for_each_combination_that_is_large_enough() -> None:
    flights = Scenario.read(FLIGHTS)
    counts: dict[Sequence[str], tuple[int, int]] = {
        ("EWR", "UA"): (30_000, 9_000),
        ("EWR", "EV"): (6_000, 1_500),
        ("JFK", "OO"): (5_999, 9_000),
        ("LGA", "DL"): (9_000, 1_499),
    }
    counts |= {tuple(name.split("-")): (6_000, 1_500) for name in ("JFK-B6",)}
    assert units(flights, {**counts, ("LGA", "DL"): (9_000, 1_500)}) == {
        "EWR-EV": ("EWR", "EV"),
        "EWR-UA": ("EWR", "UA"),
        "JFK-B6": ("JFK", "B6"),
        "LGA-DL": ("LGA", "DL"),
    }
    assert flights.resources.of("EWR-UA") == "large"
    assert flights.resources.of("LGA-MQ") == "small"
    with pytest.raises(BadScenario, match=r"flights: the data have no LGA-DL; there are EWR-EV"):
        units(flights, {key: value for key, value in counts.items() if key != ("LGA", "DL")})


def test_without_a_set_there_is_one_unit_with_the_scenarios_name() -> None:
    assert units(Scenario.read(CHURN), {}) == {"churn": ()}
    assert (model_name("churn", "churn"), model_name("flights", "EWR-UA")) == ("churn", "flights-EWR-UA")
    assert unit_name(("New York", "a/b")) == "New_York-a_b"


def test_dates_are_days() -> None:
    assert Scenario.read(CHURN).split.test_from == date(1998, 1, 1)
