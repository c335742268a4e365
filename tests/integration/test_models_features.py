"""Features as of a moment, by the real Spark: equal to an independent computation, and no leak stays unseen."""

import json
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml.keeping import Run
from ml.scenario import Scenario, named
from runtime.component import Place
from tests import model_servers
from tests.collector_real_kafka import ROOT

pytestmark = pytest.mark.timeout(1800)  # a fresh machine fetches the environments first
CUSTOMERS = 400
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("models")
    made = model_servers.place_in(folder, {"ENRICHMENT_API_DATA_FILE": str(folder / "some.txt"), "ML_SPARK_MEMORY": "1g"})
    model_servers.bring(made)
    model_servers.some_customers(folder / "some.txt", 23_570 // CUSTOMERS)
    return made


def step(place: Place, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """A step in the models' environment. (Without the lake, which these need not.)"""
    return model_servers.step(place, *arguments, **{"LAKE_CATALOG_URL": "", **more})


def scenario(folder: Path, name: str, **changes: Any) -> Path:
    """A scenario of ours with changes."""
    import msgspec
    import yaml

    made = {**msgspec.to_builtins(Scenario.read(named(name))), **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


@pytest.fixture(scope="module")
def prepared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "first")
    done = step(place, "prepare", "--scenario", "churn", "--run", str(run.folder), "--trials", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"small": ["churn"], "large": []}
    return run


def purchases(place: Place) -> Mapping[str, list[tuple[datetime, float, float]]]:
    """By customer: day, items, dollars; those of one day are one."""
    found: dict[str, dict[datetime, tuple[float, float]]] = {}
    for line in (place.state / "some.txt").read_text().splitlines()[1:]:
        customer, day, quantity, amount = line.split()
        at = datetime.strptime(day, "%Y%m%d")
        before = found.setdefault(customer, {}).get(at, (0.0, 0.0))
        found[customer][at] = (before[0] + float(quantity), before[1] + float(amount))
    return {customer: [(at, *bought) for at, bought in sorted(days.items())] for customer, days in found.items()}


def test_every_feature_and_label_is_what_a_plain_loop_says(place: Place, prepared: Run) -> None:
    known = purchases(place)
    rows = pd.read_parquet(prepared.prepared)
    assert len(rows) == len({*zip(rows["customer_id"], rows["as_of"], strict=True)}) > 3_000
    months = {pd.Timestamp(year, month, 1) for year, month in [(1997, m) for m in range(4, 13)] + [(1998, m) for m in range(1, 5)]}
    assert {pd.Timestamp(at).tz_localize(None) for at in rows["as_of"]} == months
    for row in rows.to_dict("records"):
        as_of = pd.Timestamp(row["as_of"]).tz_localize(None).to_pydatetime()
        before = [bought for bought in known[row["customer_id"]] if bought[0] < as_of]
        days, amounts = [(as_of - at) / DAY for at, _, _ in before], [amount for _, _, amount in before]
        gap = (days[0] - days[-1]) / (len(days) - 1) if len(days) > 1 else float("nan")
        expected = {
            "recency_days": days[-1],
            "tenure_days": days[0],
            "frequency": len(days),
            "mean_gap_days": gap,
            "purchases_30d": sum(ago <= 30 for ago in days),
            "purchases_90d": sum(ago <= 90 for ago in days),
            "purchases_180d": sum(ago <= 180 for ago in days),
            "mean_quantity": sum(quantity for _, quantity, _ in before) / len(before),
            "mean_amount": sum(amounts) / len(amounts),
            "last_amount": amounts[-1],
            "amount_90d": sum(amount for ago, amount in zip(days, amounts, strict=True) if ago <= 90),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, nan_ok=True, abs=1e-9), (row["customer_id"], as_of, name)
        again = any(as_of <= at < as_of + 90 * DAY for at, _, _ in known[row["customer_id"]])
        assert row["label"] == (0.0 if again else 1.0)


def test_a_clean_scenario_was_checked_at_several_moments(prepared: Run) -> None:
    checked = json.loads((prepared.folder / "prepare.json").read_text())
    assert checked["leak_check"] == {"moments": 5, "rows": checked["leak_check"]["rows"], "leaks": []}
    assert checked["leak_check"]["rows"] >= 1_000
    assert checked["data_snapshot"].startswith("sha256:")


@pytest.mark.parametrize(("planted", "column"), [("Lifetime", "spent_in_all"), ("OnTheDay", "recency_days")])
def test_a_planted_leak_is_caught(place: Place, tmp_path: Path, planted: str, column: str) -> None:
    leaky = scenario(tmp_path, "churn", features=f"ml.examples.planted:{planted}")
    done = step(place, "prepare", "--scenario", str(leaky), "--run", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "ml prepare: churn: " in done.stderr
    assert f"{column} of source cdnow, customer_id " in done.stderr.splitlines()[-1]
    assert "without the future" in done.stderr
    assert not (tmp_path / "run" / "prepared").exists()
    assert not (tmp_path / "run" / "units.json").exists()


def test_training_again_from_what_was_kept_makes_the_same_model(place: Place, prepared: Run) -> None:
    folder = prepared.folder / "units" / "churn"
    sums = []
    for _ in range(2):
        done = step(place, "train", "--run", str(prepared.folder), "--unit", "churn")
        assert done.returncode == 0, done.stderr[-3000:]
        sums.append((folder / "model.onnx").read_bytes())
    assert sums[0] == sums[1]
    record = json.loads((folder / "train.json").read_text())
    assert record["onnx_differs"] <= 1e-5
    assert record["trials"] == 2
    assert record["seconds"] > 0
    assert record["processor_seconds"] > 0
    assert set(record["inputs"]) == {str(prepared.prepared), str(prepared.folder / "scenario.yaml")}
    held = pd.read_parquet(folder / "held_out.parquet")
    assert len(held) == record["rows"]["judge"] > 0
    assert record["learnt_until"] < record["judged_from"] == "1998-01-01T00:00:00.000000"


def test_thresholds_between_two_numbers_of_float32_are_exported_exactly_and_as_the_same_file(place: Place) -> None:
    command = [model_servers.python(place), "-m", "tests.model_export"]
    said = []
    for seed in ("1", "122"):  # by the second the converter has its sets of operators in another order
        env = model_servers.environment(place) | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        said.append(done.stdout.splitlines())
    assert said[0] == said[1]
    assert said[0][-1].startswith("100 of 100 rows are scored differently by ONNX: row ")


def test_a_unit_that_is_not_there_is_named(place: Place, prepared: Run) -> None:
    done = step(place, "train", "--run", str(prepared.folder), "--unit", "EWR-UA")
    assert (done.returncode, done.stderr.strip()) == (1, f"ml train: {prepared.folder}: no unit EWR-UA; there are churn")


def test_a_step_before_the_first_is_refused(place: Place, tmp_path: Path) -> None:
    done = step(place, "train", "--run", str(tmp_path / "none"), "--unit", "churn")
    assert done.returncode == 1
    assert done.stderr.strip().endswith(f"begin with `python -m ml prepare --scenario NAME --run {tmp_path / 'none'}`")


def test_the_environment_has_no_setting_that_nobody_knows(place: Place, tmp_path: Path) -> None:
    done = step(place, "train", "--run", str(tmp_path / "none"), "--unit", "churn", ML_CORSE="2")
    assert done.returncode == 2
    assert done.stderr.startswith("setting ML_CORSE: no such setting; known are ")
