"""Releases of a model while requests come: the API as a process of its own, and none of them fails."""

import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests import models
from tests.enrichment_api_process import enrichment_api

TWO: dict[str, Any] = {"champion": "v1", "challenger": "v2"}
PATIENT: dict[str, Any] = {"bounds": {"p99_ms": 60_000}}  # that the machine is busy is no reason to return to the champion here


class Load:
    """Clients that score without a pause: what they were answered, by version, and everything that was no whole answer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.found: Counter[tuple[str, str, float]] = Counter()
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._score, args=(number, size)) for number, size in enumerate((1, 1, 100))]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _score(self, number: int, size: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as api:
            while not self._stop.is_set():
                try:
                    response = api.post("/v1/score", json={"events": [event(f"{number}-{n}") for n in range(size)]})
                    answers = [answer["repurchase"] for answer in response.json()["enrichments"]]
                except Exception as error:
                    self.wrong.append(repr(error))
                    return
                if response.status_code != 200 or len(answers) != size:
                    self.wrong.append(response.text[:300])
                self.found.update((answer["variant"], answer["version"], answer["score"]) for answer in answers)


def event(subject: str, quantity: float = 1) -> dict[str, Any]:
    data = {"quantity": quantity, "amount_usd": 9.99}
    return {"id": f"e-{subject}", "source": "shop", "type": "purchase", "time": "2026-11-22T00:00:00Z", "subject": subject, "data": data}


def write(folder: Path, text: str | None = None, **said: Any) -> None:
    new = folder / "release.new"
    new.write_text(text if text is not None else yaml.safe_dump({"repurchase": said}))
    new.rename(folder / "release.yaml")


def serves(url: str) -> dict[str, Any]:
    said: dict[str, Any] = httpx.get(url + "/readyz", timeout=60).json()
    return said


def until(url: str, what: Any) -> dict[str, Any]:
    while not what(said := serves(url)):
        time.sleep(0.05)
    return said


def shares(said: dict[str, Any]) -> dict[str, float]:
    return {f"{variant['variant']} {variant['version']}": variant["share"] for variant in said["variants"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for version, score in (("v1", 0.25), ("v2", 0.5), ("v3", 0.75)):
        models.release(tmp_path, version, models.constant(score))
    models.release(tmp_path, "raising", models.fails_for_large_quantities(0.5, 100))
    return tmp_path


def test_versions_and_strategies_change_under_load_and_no_request_fails(folder: Path) -> None:
    with enrichment_api(folder, SHADOW_FILE=str(folder / "shadow.jsonl")) as (url, _), Load(url) as load:
        assert shares(serves(url)) == {"champion v1": 1.0}
        challengers = {"b": {"model": "v2", "share": 0.25}, "c": {"model": "v3", "share": 0.25}}
        colours = {"strategy": "blue_green", "blue": "v1", "green": "v3"}
        steps: list[tuple[dict[str, Any], dict[str, float]]] = [
            ({"strategy": "recreate", "champion": "v2"}, {"champion v2": 1}),
            ({"strategy": "canary", "share": 0.05, **TWO, **PATIENT}, {"champion v1": 0.95, "challenger v2": 0.05}),
            ({"strategy": "canary", "share": 0.5, **TWO, **PATIENT}, {"champion v1": 0.5, "challenger v2": 0.5}),
            ({**colours, "live": "green"}, {"green v3": 1, "blue v1": 0}),
            ({**colours, "live": "blue"}, {"blue v1": 1, "green v3": 0}),
            ({"strategy": "ab", "champion": "v1", "challengers": challengers, **PATIENT}, {"champion v1": 0.5, "b v2": 0.25, "c v3": 0.25}),
            ({"strategy": "shadow", **TWO}, {"champion v1": 1, "challenger v2": 0}),
        ]
        for said, expected in steps:
            write(folder, **said)
            until(url, lambda found, expected=expected: shares(found) == expected)
            before = load.found.total()
            while load.found.total() < before + 200 and not load.wrong:
                time.sleep(0.05)
        begins = datetime.now(UTC) + timedelta(seconds=1)
        write(folder, strategy="rolling", champion="v1", challenger="v3", starts_at=begins, seconds=3, **PATIENT)
        until(url, lambda found: 0 < shares(found).get("challenger v3", 0) < 1)
        until(url, lambda found: shares(found) == {"champion v1": 0, "challenger v3": 1})
        for bad in ("repurchase: [", "repurchase: {strategy: recreate, champion: v9}"):
            write(folder, bad)
            until(url, lambda found: found["refused"])
            assert shares(serves(url)) == {"champion v1": 0, "challenger v3": 1}
        (folder / "release.yaml").unlink()
        said = until(url, lambda found: not found["refused"])
        assert shares(said) == {"champion v1": 1}
        metrics = httpx.get(url + "/metrics").text
    assert load.wrong == []
    assert {(version, score) for _, version, score in load.found} == {("v1", 0.25), ("v2", 0.5), ("v3", 0.75)}
    assert {variant for variant, *_ in load.found} == {"champion", "challenger", "blue", "green", "b", "c"}
    assert (folder / "shadow.jsonl").stat().st_size > 0
    assert "enrichment_api_release_usable 1.0" in metrics
    assert "enrichment_api_release_refused_total 2.0" in metrics
    assert 'enrichment_api_variant_share{model="repurchase",variant="champion",version="v1"} 1.0' in metrics
    assert "what served before goes on" in (folder / "log").read_text()


def test_a_challenger_that_fails_is_taken_away_by_itself_and_no_request_fails(folder: Path) -> None:
    write(folder, strategy="canary", share=0.5, champion="v1", challenger="raising", bounds={"min_calls": 5, "p99_ms": 60_000})
    with enrichment_api(folder) as (url, _), httpx.Client(base_url=url, timeout=60) as api:
        events = [event(f"c-{n}") for n in range(200)]
        good = api.post("/v1/score", json={"events": events}).json()["enrichments"]
        assert Counter(answer["repurchase"]["version"] for answer in good).keys() == {"v1", "raising"}
        for _ in range(10):
            response = api.post("/v1/score", json={"events": [event(f"c-{n}", quantity=1000) for n in range(200)]})
            assert response.status_code == 200
            assert {answer["repurchase"]["version"] for answer in response.json()["enrichments"]} == {"v1"}
        said = until(url, lambda found: found["variants"][1]["returned"])
        assert shares(said) == {"champion v1": 1, "challenger raising": 0}
        assert 'enrichment_api_returned_total{variant="challenger",why="error_rate"} 1.0' in api.get("/metrics").text
        while not (folder / "release.yaml.returned").is_file():
            time.sleep(0.05)
    with enrichment_api(folder) as (url, _):  # a restart does not try it again
        assert shares(serves(url)) == {"champion v1": 1, "challenger raising": 0}


def test_a_bad_release_file_at_the_start_is_said_in_a_line(folder: Path) -> None:
    write(folder, "repurchase: {strategy: recreate, champion: v9}")
    with pytest.raises(AssertionError, match="it ended before it was ready"), enrichment_api(folder):
        pass
    said = (folder / "log").read_text()
    assert said.startswith("enrichment_api: ")
    assert "v9: no model (No such file or directory)" in said
    assert len(said.splitlines()) == 1
