"""The model that the API serves is learnt from what the API would have seen: the same rows, the same values to the last bit."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from enrichment_api import history
from enrichment_api.train import outcome
from headrace.features import FEATURES, features
from ml.keeping import Run
from runtime.component import Place
from tests import model_servers

pytestmark = pytest.mark.timeout(1800)  # a fresh machine fetches the environments first
ONE_IN = 20  # of CDNOW's customers


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("models")
    made = model_servers.place_in(folder, {"ENRICHMENT_API_DATA_FILE": str(folder / "some.txt"), "ML_SPARK_MEMORY": "1g"})
    model_servers.bring(made)
    model_servers.some_customers(folder / "some.txt", ONE_IN)
    return made


@pytest.fixture(scope="module")
def prepared(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What training reads, made by Spark."""
    run = Run(tmp_path_factory.mktemp("runs") / "first")
    done = model_servers.step(place, "prepare", "--scenario", "repurchase", "--run", str(run.folder), LAKE_CATALOG_URL="")
    assert done.returncode == 0, done.stderr[-3000:]
    return run


def test_each_purchase_is_a_row_with_the_values_that_the_api_computes(place: Place, prepared: Run) -> None:
    read = history.read(place.state / "some.txt")
    expected, _ = features(read.time, read.quantity, read.amount_usd, read.state)
    known = read.time + np.timedelta64(90, "D") <= read.time.max()
    ours = pd.DataFrame(expected[known], columns=list(FEATURES))
    ours.insert(0, "label", outcome(read)[known].astype(float))
    ours.insert(0, "time", read.time[known])
    ours.insert(0, "customer_id", np.array(read.customer)[known])
    rows = pd.read_parquet(prepared.prepared)
    assert len(rows) == len(rows.drop_duplicates(["source", "customer_id", "purchase"])) == len(ours) > 2_000
    assert set(rows["bought"]) == {"never before", "once before", "more often"}
    theirs = rows.assign(time=pd.to_datetime(rows["as_of"], utc=True).dt.tz_convert(None).astype("M8[us]"))
    by = ["customer_id", "time", "quantity", "amount_usd"]
    theirs, ours = (each.sort_values(by, kind="stable").reset_index(drop=True) for each in (theirs, ours))
    assert theirs["customer_id"].tolist() == ours["customer_id"].tolist()
    assert (theirs["time"] == ours["time"]).all()
    assert theirs["label"].tolist() == ours["label"].tolist()
    assert theirs[[*FEATURES]].to_numpy(np.float32).tobytes() == ours[[*FEATURES]].to_numpy(np.float32).tobytes()


def test_it_was_checked_for_leaks(prepared: Run) -> None:
    record = json.loads((prepared.folder / "prepare.json").read_text())
    assert (record["leak_check"]["moments"], record["leak_check"]["leaks"]) == (5, [])
    assert record["leak_check"]["rows"] >= 5


def test_purchases_of_one_moment_do_not_know_of_each_other(place: Place, prepared: Run, tmp_path: Path) -> None:
    rows = pd.read_parquet(prepared.prepared)
    same = rows[rows.duplicated(["customer_id", "as_of"], keep=False)]
    assert len(same) > 10
    for _, of_one in same.groupby(["customer_id", "as_of"]):
        assert of_one["frequency"].nunique() == of_one["label"].nunique() == 1
    assert rows["as_of"].max() - rows["as_of"].min() > timedelta(days=400)
