"""Trials of a tuning on the machines of a Ray cluster: the same as here, and none lost with a machine."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import yaml

from ml.examples.churn import Churn
from ml.keeping import Run, write_json
from ml.scenario import Scenario, named
from runtime.component import Place
from tests import model_servers
from tests.collector_real_kafka import ROOT

pytestmark = pytest.mark.timeout(1800)  # a fresh machine fetches the environments first
TRIALS = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = model_servers.place_in(tmp_path_factory.mktemp("ray"), {})
    model_servers.bring(made)
    return made


def prepared(folder: Path, model: str) -> Run:
    """A run whose rows are made up: the label follows from two features."""
    run, rng = Run(folder), np.random.default_rng(7)
    folder.mkdir()
    scenario = {**msgspec.to_builtins(Scenario.read(named("churn"))), "model": model, "tuning": {"trials": TRIALS, "seconds": 600}}
    (folder / "scenario.yaml").write_text(yaml.safe_dump(scenario))
    write_json(folder / "units.json", {"churn": []})
    months = [datetime(1997 + month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in range(3, 15)]
    rows = pd.DataFrame({name: rng.exponential(10, 6_000) for name in Churn.columns})
    rows["label"] = (rows["recency_days"] + rng.exponential(5, len(rows)) > rows["frequency"]).astype(float)
    keys = {"source": "cdnow", "customer_id": [f"{number:05}" for number in range(len(rows))], Churn.segment: "once"}
    run.prepared.mkdir()
    rows.assign(**keys, as_of=[months[number % 12] for number in range(len(rows))]).to_parquet(run.prepared / "part.parquet")
    return run


def test_trials_run_on_all_machines_and_none_is_lost_with_one(place: Place, tmp_path: Path) -> None:
    models = {
        "here": "ml.learners:Boosting",
        "alone": "ml.learners:Boosting",
        "together": "ml.learners:Boosting",
        "losing": "tests.ray_learner:Slow",
    }
    here, *others = [prepared(tmp_path / name, model) for name, model in models.items()]
    done = model_servers.step(place, "train", "--run", str(here.folder), "--unit", "churn")
    assert done.returncode == 0, done.stderr[-3000:]
    expected = json.loads(done.stdout.splitlines()[-1])
    command = [
        "unshare",
        "--map-root-user",
        "--net",
        str(ROOT / ".venv/bin/python"),
        "-m",
        "tests.ray_cluster",
        model_servers.python(place),
    ]
    ended = subprocess.run(
        [*command, *(str(run.folder) for run in others)],
        cwd=ROOT,
        env=model_servers.environment(place),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    alone, together, losing = json.loads(ended.stdout.splitlines()[-1])
    assert (expected["machines"], alone["machines"], together["machines"]) == (1, 1, 2)
    assert alone["parameters"] == expected["parameters"]
    assert alone["auc"] == expected["auc"]
    assert together["auc"] > together["baseline_auc"] > 0.5
    assert [each["trials"] for each in (expected, alone, together, losing)] == [TRIALS] * 4
    assert 5 <= losing["parameters"]["max_iter"] <= 20


def test_a_cluster_that_is_not_there_is_one_line(place: Place, tmp_path: Path) -> None:
    run = prepared(tmp_path / "run", "ml.learners:Boosting")
    done = model_servers.step(place, "train", "--run", str(run.folder), "--unit", "churn", ML_RAY_ADDRESS="127.0.0.2:1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ml train: Ray at 127.0.0.2:1 (ML_RAY_ADDRESS): ")
