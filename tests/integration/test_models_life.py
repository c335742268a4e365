"""A model's life on real servers: trained, judged, registered, promoted, scored, and taken back."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace.scores import CHAMPIONS
from ml import promotion
from ml.errors import Mendable
from ml.registry import Registry
from tests import model_servers
from tests.collector_real_kafka import ROOT
from tests.integration import lakes
from tests.integration.model_life import Life, life_in

# A fresh machine fetches the environments first.
pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def life(servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    with life_in(tmp_path_factory.mktemp("life")) as made:
        yield made


@pytest.fixture(scope="module")
def first(life: Life) -> dict[str, Any]:
    """A model of real data, registered."""
    run = str(life.folder / "first")
    life.done("prepare", "--scenario", str(life.scenario("churn")), "--run", run, "--trials", "2")
    life.done("train", "--run", run, "--unit", "churn")
    life.done("judge", "--run", run, "--unit", "churn")
    return life.done("register", "--run", run, "--unit", "churn")


def test_a_model_that_beats_the_baseline_passes_with_all_that_is_known_of_it(life: Life, first: dict[str, Any]) -> None:
    assert (first["model"], first["version"], first["gate"], first["reasons"]) == ("churn", 1, "passed", [])
    with Registry(life.url) as registry:
        version = registry.version("churn", 1)
        card = json.loads(registry.file(version, "extra_files/card.json"))
        assert registry.champion("churn") is None
        signature = yaml.safe_load(registry.file(version, "MLmodel"))["signature"]
        assert json.loads(signature["inputs"])[0]["tensor-spec"] == {"dtype": "float32", "shape": [-1, len(card["features"])]}
        assert registry.onnx(version) == (life.folder / "first/units/churn/model.onnx").read_bytes()
    assert card["reports"]["model"]["overall"]["auc"] > card["reports"]["baseline"]["overall"]["auc"] > 0.7
    assert version.tags["data_snapshot"] == card["data_snapshot"]
    assert version.tags["code"]
    assert version.tags["learnt_until"] < version.tags["judged_from"]


def test_nobody_scores_before_somebody_promotes(life: Life, first: dict[str, Any]) -> None:
    done = life.step("score", "--scenario", str(life.folder / "churn.yaml"), "--run", str(life.folder / "score0"))
    assert (done.returncode, done.stderr.splitlines()[-1].partition(": `headrace")[0]) == (1, "ml score: churn: no model is champion")


def test_a_person_promotes_and_it_is_on_record(life: Life, first: dict[str, Any]) -> None:
    assert life.headrace("promote", "churn", "1").returncode == 2  # it wants a reason
    done = life.headrace("promote", "churn", "1", "--why", "the first one")
    assert done.returncode == 0, done.stderr
    shown = life.headrace("show", "churn").stdout
    assert "1 (champion)" in shown
    assert "promote none -> 1 (the first one)" in shown
    assert life.headrace("promote", "churn", "1", "--why", "again").stderr == "headrace: churn 1 is the champion already\n"
    assert "there is no model chrun; there are churn" in life.headrace("show", "chrun").stderr


def test_rows_are_scored_once_and_equal_to_the_model(life: Life, first: dict[str, Any]) -> None:
    churn = str(life.folder / "churn.yaml")
    whole = life.done("score", "--scenario", churn, "--run", str(life.folder / "score1"), "--since", "1998-06-01")
    again = life.done("score", "--scenario", churn, "--run", str(life.folder / "score2"), "--since", "1998-06-01")
    assert (whole["rows"], again["rows"]) == (2 * 23_570, 0)
    more = life.done("score", "--scenario", churn, "--run", str(life.folder / "score3"), "--since", "1998-05-01")
    assert more["rows"] == 23_570
    table = lakes.catalog().load_table(f"{life.namespace}.scores")
    assert json.loads(table.properties[CHAMPIONS]) == {"churn": 1}
    found = table.scan().to_pandas()
    assert len(found) == len(found.drop_duplicates(["source", "customer_id", "as_of"])) == 3 * 23_570
    assert set(zip(found["model"], found["model_version"], strict=True)) == {("churn", 1)}
    check = (
        "import pandas, pathlib, sys; from ml.export import Scorer; from ml.examples.churn import Churn\n"
        "rows = pandas.read_parquet(sys.argv[1]); x = rows[[*Churn.columns]].to_numpy('float32')\n"
        "rows['again'] = Scorer(pathlib.Path(sys.argv[2]).read_bytes())(x)\n"
        "rows[['customer_id', 'as_of', 'again']].to_parquet(sys.argv[3])"
    )
    files = [str(life.folder / "score1/inputs"), str(life.folder / "first/units/churn/model.onnx"), str(life.folder / "again.parquet")]
    subprocess.run([model_servers.python(life.place), "-c", check, *files], cwd=ROOT, check=True, timeout=300)
    import pandas as pd

    other = pd.read_parquet(files[2])
    for each in (found, other):
        each["as_of"] = pd.to_datetime(each["as_of"], utc=True)
    both = found.merge(other, on=["customer_id", "as_of"])
    assert len(both) == 2 * 23_570
    assert (both["score"] - both["again"]).abs().max() < 1e-6


def test_a_lake_that_does_not_answer_is_one_line(life: Life, first: dict[str, Any]) -> None:
    away = {"LAKE_CATALOG_URL": "postgresql://nobody:x@127.0.0.1:1/lake"}
    done = life.step("score", "--scenario", str(life.folder / "churn.yaml"), "--run", str(life.folder / "away"), **away)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ml score: the lake's catalog (LAKE_CATALOG_URL): ")
    assert "Traceback" not in done.stderr


def test_a_drifting_input_is_refused_and_nothing_is_written(life: Life, first: dict[str, Any]) -> None:
    cents = life.scenario("cents", data="ml.examples.planted:in_cents")
    before = lakes.catalog().load_table(f"{life.namespace}.scores").current_snapshot()
    done = life.step("score", "--scenario", str(cents), "--run", str(life.folder / "score4"), "--since", "1998-04-01")
    assert done.returncode == 1
    assert "ml score: what is to be scored looks otherwise than what the champion was judged on: churn: mean_amount (PSI " in done.stderr
    assert lakes.catalog().load_table(f"{life.namespace}.scores").current_snapshot() == before


def test_a_worse_model_is_registered_with_the_reasons_and_cannot_be_promoted(life: Life, first: dict[str, Any]) -> None:
    run = life.folder / "first"
    worse = life.scenario("worse", model="ml.examples.planted:Worse")
    (life.folder / "second").mkdir()
    for name in ("prepared", "units.json", "prepare.json"):  # the same rows
        (life.folder / "second" / name).symlink_to(run / name)
    (life.folder / "second/scenario.yaml").write_text(worse.read_text())
    for step in ("train", "judge"):
        life.done(step, "--run", str(life.folder / "second"), "--unit", "churn")
    told = life.done("register", "--run", str(life.folder / "second"), "--unit", "churn")
    assert (told["version"], told["gate"]) == (2, "failed")
    assert any(reason.startswith("AUC against the champion's") for reason in told["reasons"])
    assert any(reason.startswith("AUC against the baseline's") for reason in told["reasons"])
    refused = life.headrace("promote", "churn", "2", "--why", "I like it").stderr
    assert refused.startswith("headrace: churn 2 did not pass the gate: AUC against the baseline's")
    assert "failed" in life.headrace("list").stdout


def test_a_promotion_is_taken_back_in_one_command(life: Life, first: dict[str, Any]) -> None:
    run = str(life.folder / "first")
    third = life.done("register", "--run", run, "--unit", "churn")["version"]  # the same model under a new number, as it was judged
    assert life.headrace("promote", "churn", str(third), "--why", "renewed").returncode == 0
    back = life.headrace("rollback", "churn", "--why", "it was too slow")
    assert f"rollback {third} -> 1 (it was too slow)" in back.stdout
    with Registry(life.url) as registry:
        model = registry.model("churn")
        assert model.champion == 1
        assert [(each.action, each.from_, each.to) for each in promotion.changes(model)] == [
            ("promote", None, 1),
            ("promote", 1, third),
            ("rollback", third, 1),
        ]
        registry.point("churn", third)  # somebody does it in MLflow's own pages
        assert "moved in MLflow itself" in str(promotion.story(registry.model("churn")))
        registry.point("churn", 1)
        assert promotion.rollback(registry, "churn", "me", "all of it").to is None
        assert registry.champion("churn") is None
        with pytest.raises(Mendable, match="there is no promotion to undo"):
            promotion.rollback(registry, "churn", "me", "more")


def test_a_registry_that_is_away_is_said_in_one_line(life: Life, tmp_path: Path) -> None:
    with (
        Registry("http://127.0.0.1:9") as registry,
        pytest.raises(Mendable, match=r"MLflow not reachable at http://127.0.0.1:9: `make up PROFILE=models`"),
    ):
        registry.models()
