"""What is expected of events: read, and each mistake told in a sentence."""

from pathlib import Path

import pytest
import yaml

from cli.schemas import problems
from dags.curation.expectations import Expectation, ExpectationsError, properties_of, read_expectations
from dags.curation.plan import read_plan

ROOT = Path(__file__).parents[2]
PROPERTIES = {
    "order": {"id": "string", "sum": "number", "n": "integer", "any": "", "items": "array"},
    "view": {"session": "string"},
}


def read(folder: Path, text: str) -> list[Expectation]:
    (folder / "order").mkdir(exist_ok=True)
    (folder / "order/expectations.yaml").write_text(text)
    return read_expectations(folder, PROPERTIES).get("order", [])


def test_every_check_is_read_and_put_in_words(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        there: {check: present, property: any, level: warn}
        small: {check: range, property: sum, min: 0, max: 5.5, level: fail}
        many: {check: range, property: n, min: 2, level: warn}
        known: {check: set, property: id, values: [a, b], level: warn}
        once: {check: unique, property: id, days: 30, level: fail}
        seen: {check: reference, property: id, to: view.session, level: warn}
        fresh: {check: fresh, hours: 6, level: warn}
        usual: {check: volume, min: 0.5, max: 2, level: warn}
        """,
    )
    assert [(each.of_rows, str(each)) for each in found] == [
        (True, "there: any is there"),
        (True, "small: sum is at least 0 and at most 5.5"),
        (True, "many: n is at least 2"),
        (True, "known: id is one of a, b"),
        (False, "once: no id comes twice in 30 days"),
        (False, "seen: each id is a view.session of the last 7 days"),
        (False, "fresh: an event came in the last 6 hours"),
        (False, "usual: a day has at least 0.5 times and at most 2 times the events of that a week before"),
    ]
    assert found[1] == Expectation("small", "order", "range", "fail", "sum", 0, 5.5)


@pytest.mark.parametrize(
    ("of", "problem"),
    [
        ({"check": "likely", "level": "warn"}, "check is one of present, range, set, unique, reference, fresh, volume"),
        ({"check": "present", "level": "warn"}, "present needs property"),
        ({"check": "present", "property": "id", "level": "error"}, "level is warn or fail"),
        ({"check": "present", "property": "id", "max": 1, "level": "warn"}, "present has no max: it has property"),
        ({"check": "present", "property": "nope", "level": "warn"}, "no schema of order has a property nope"),
        ({"check": "range", "property": "sum", "level": "warn"}, "range needs min or max"),
        ({"check": "range", "property": "sum", "min": "0", "level": "warn"}, "min is a number"),
        ({"check": "range", "property": "sum", "min": 2, "max": 1, "level": "warn"}, "min is more than max"),
        ({"check": "range", "property": "id", "min": 0, "level": "warn"}, "id is no number"),
        ({"check": "set", "property": "id", "values": [], "level": "warn"}, "values is a list"),
        ({"check": "unique", "property": "items", "level": "warn"}, "items is an array: only single values can be judged"),
        ({"check": "unique", "property": "id", "days": 0, "level": "warn"}, "days is more than 0"),
        ({"check": "reference", "property": "id", "to": "visit.session", "level": "warn"}, "there is no event type visit"),
        ({"check": "reference", "property": "id", "to": "view", "level": "warn"}, "to is TYPE.PROPERTY"),
        ({"check": "fresh", "level": "warn"}, "fresh needs hours"),
        ("yes", "check is one of present, range, set, unique, reference, fresh, volume"),
    ],
)
def test_a_mistake_is_said(tmp_path: Path, of: object, problem: str) -> None:
    with pytest.raises(ExpectationsError) as caught:
        read(tmp_path, yaml.safe_dump({"rule": of}))
    assert caught.value.problems == [f"{tmp_path}/order/expectations.yaml: rule: {problem}"]


@pytest.mark.parametrize("text", ["[1]", "a: [", "text"])
def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ExpectationsError) as caught:
        read(tmp_path, text)
    assert len(caught.value.problems) == 1
    assert "\n" not in caught.value.problems[0]


def test_those_of_this_checkout_and_the_check_that_reads_them(tmp_path: Path) -> None:
    schemas = {ref: schema for of in read_plan(ROOT / "schemas").values() for ref, schema in of.items()}
    found = read_expectations(ROOT / "schemas", properties_of(schemas))
    assert {"purchase", "page_view", "add_to_cart"} <= set(found)
    assert {each.level for each in found["purchase"]} == {"warn", "fail"}
    for path in (ROOT / "schemas").rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(ROOT / "schemas")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / "login/expectations.yaml").write_text("way: {check: set, property: way, values: [sso], level: warn}")
    assert problems(tmp_path)[0] == [f"{tmp_path}/login/expectations.yaml: way: no schema of login has a property way"]
