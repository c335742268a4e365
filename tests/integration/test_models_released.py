"""What the registry says is what serves: a real MLflow, a real enrichment API, and requests all along."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from ml.registry import Registry
from tests.enrichment_api_process import enrichment_api
from tests.integration.model_life import Life, life_in
from tests.integration.test_enrichment_api_releases import Load, serves, shares, until

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]
# What is tested is what a verdict leads to, not how good two trials are.
EASY = {"bounds": {"most_segment_loss": 0.2, "stable": ["quantity"]}, "baseline": {"columns": ["recency_days"]}}


@pytest.fixture(scope="module")
def life(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """With two versions of one model, and a third that did not pass."""
    with life_in(tmp_path_factory.mktemp("life")) as made:
        run = str(made.folder / "run")
        made.done("prepare", "--scenario", str(made.scenario("repurchase", "repurchase", **EASY)), "--run", run, "--trials", "2")
        for step in ("train", "judge", "register", "register"):
            told = made.done(step, "--run", run, "--unit", "repurchase")
        assert (told["version"], told["gate"]) == (2, "passed"), told["reasons"]
        worse = made.folder / "worse"
        worse.mkdir()
        for name in ("prepared", "units.json", "prepare.json"):
            (worse / name).symlink_to(made.folder / "run" / name)
        changed = made.scenario("worse", "repurchase", **EASY, model="ml.examples.planted:Worse")
        (worse / "scenario.yaml").write_text(changed.read_text())
        for step in ("train", "judge", "register"):
            made.done(step, "--run", str(worse), "--unit", "repurchase")
        yield made


@pytest.fixture(scope="module")
def names(life: Life) -> dict[int, str]:
    """What events call each version."""
    with Registry(life.url) as registry:
        return {version.number: version.called for version in registry.versions("repurchase")}


def file_of(life: Life) -> Path:
    return Path(life.place.env["ENRICHMENT_API_RELEASE_FILE"])


def works(life: Life, *arguments: str) -> str:
    done = life.headrace(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_is_promoted_serves_without_a_restart_and_without_a_failed_request(life: Life, names: dict[int, str]) -> None:
    said = works(life, "promote", "repurchase", "1", "--why", "the first one")
    assert f"champion repurchase/{names[1]}" in said
    (life.folder / "api").mkdir()
    with enrichment_api(life.folder / "api", RELEASE_FILE=str(file_of(life))) as (url, _), Load(url) as load:
        assert shares(serves(url)) == {f"champion {names[1]}": 1}
        works(life, "release", "repurchase", "2", "--strategy", "blue_green")
        until(url, lambda said: shares(said) == {f"blue {names[1]}": 1, f"green {names[2]}": 0})
        works(life, "release", "repurchase", "2", "--strategy", "blue_green", "--live")
        until(url, lambda said: shares(said) == {f"blue {names[1]}": 0, f"green {names[2]}": 1})
        works(life, "promote", "repurchase", "2", "--why", "it did well")
        until(url, lambda said: shares(said) == {f"champion {names[2]}": 1})
        assert f"champion repurchase/{names[1]}" in works(life, "rollback", "repurchase", "--why", "it did not")
        until(url, lambda said: shares(said) == {f"champion {names[1]}": 1})
        with Registry(life.url) as registry:
            registry.point("repurchase", 2)  # somebody does it in MLflow's own pages
        works(life, "release", "repurchase")
        until(url, lambda said: shares(said) == {f"champion {names[2]}": 1})
        before = load.found.total()
        while load.found.total() < before + 200 and not load.wrong:
            time.sleep(0.05)
        [card] = httpx.get(f"{url}/v1/models").json()["models"]
    assert load.wrong == []
    assert {version for _, version, _ in load.found} == {names[1], names[2]}
    scores = [score for _, _, score in load.found]
    assert max(scores) - min(scores) < 1e-6  # the same file under two numbers; a sum depends on how many are scored at once
    assert card["version"] == names[2]


def test_the_card_that_is_served_is_the_one_of_the_registry(life: Life, names: dict[int, str]) -> None:
    works(life, "release", "repurchase", "1")
    card = json.loads((file_of(life).parent / "repurchase" / names[1] / "model.json").read_text())
    with Registry(life.url) as registry:
        version = registry.version("repurchase", 1)
        theirs = json.loads(registry.file(version, "extra_files/card.json"))
    assert card["onnx_sha256"] == version.tags["onnx_sha256"]
    assert card["metrics"]["repurchase"]["auc"] == round(theirs["reports"]["model"]["overall"]["auc"], 4)
    assert (card["horizon_days"], card["data_sha256"], card["seed"]) == (90, version.tags["data_snapshot"], 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("repurchase", "3"), "repurchase 3 did not pass the gate: `headrace models show repurchase` says why"),
        (("repurchase", "9"), "repurchase has no version 9; there are 3, 2, 1"),
        (("churn",), "churn has no champion"),
        (("repurchase", "2", "--strategy", "canary"), "missing required field `share`"),
        (("repurchase", "2", "--share", "0.1"), "unknown field `share`"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(life: Life, arguments: tuple[str, ...], said: str) -> None:
    works(life, "release", "repurchase", "1")
    before = file_of(life).read_bytes()
    done = life.headrace("release", *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert file_of(life).read_bytes() == before


def test_what_others_wrote_stays(life: Life, names: dict[int, str]) -> None:
    file_of(life).write_text("# ours\nrepurchase: {strategy: recreate, champion: old}\n# end\n")
    works(life, "release", "repurchase", "1")
    lines = file_of(life).read_text().splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("# ours", "repurchase:", "# end")
    works(life, "release", "repurchase", "2", "--strategy", "canary", "--share", "0.05")
    said = yaml.safe_load(file_of(life).read_text())["repurchase"]
    assert said == {
        "strategy": "canary",
        "champion": f"repurchase/{names[1]}",
        "challenger": f"repurchase/{names[2]}",
        "share": 0.05,
    }
