"""Training: what is written can be served, is the same each time, and says how good it is."""

import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from enrichment_api.history import BadData, read
from enrichment_api.model import Model, ModelError, read_card
from enrichment_api.train import split, train
from headrace.features import FEATURES, features


def write_purchases(path: Path, customers: int = 400) -> Path:
    """A shop of 400 days where one customer in three comes often and the others hardly ever again."""
    generator = np.random.default_rng(7)
    lines = ["customer_id date number_of_cds dollar_value"]
    for customer in range(customers):
        day, gap = int(generator.integers(0, 90)), 25 if customer % 3 == 0 else 250
        while day < 400:
            bought = f"{date(1997, 1, 1) + timedelta(days=day):%Y%m%d}"
            lines.append(f"{customer:05d} {bought} {generator.integers(1, 6)} {generator.integers(500, 9000) / 100:.2f}")
            day += 1 + int(generator.exponential(gap))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_purchases(tmp_path_factory.mktemp("data") / "purchases.txt")


def test_the_card_says_what_the_model_is_and_how_good(data: Path, tmp_path: Path) -> None:
    card = train(data, tmp_path)
    assert read_card(tmp_path) == card
    assert card.features == FEATURES
    assert card.version.endswith("-" + card.onnx_sha256[:8])
    assert set(card.metrics) == {"repurchase", "frequency only", "recency only"}
    assert card.metrics["repurchase"].auc > 0.6  # there is something to be learnt in this shop
    assert date.fromisoformat(card.train_until) + timedelta(days=90) < date.fromisoformat(card.test_from)


def test_the_same_data_gives_the_same_model(data: Path, tmp_path: Path) -> None:
    first, second = train(data, tmp_path / "1"), train(data, tmp_path / "2")
    assert first.onnx_sha256 == second.onnx_sha256
    assert first.metrics == second.metrics


def test_the_served_model_gives_the_auc_of_its_card(data: Path, tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    from enrichment_api.train import outcome

    card, history = train(data, tmp_path), read(data)
    rows, _ = features(history.time, history.quantity, history.amount_usd, history.state)
    held_out = split(history).test
    scores = Model.load(tmp_path).score(rows[held_out])
    assert held_out.sum() == card.test_rows
    assert roc_auc_score(outcome(history)[held_out], scores) == pytest.approx(card.metrics["repurchase"].auc, abs=1e-4)


def test_too_little_data_is_said(tmp_path: Path) -> None:
    path = tmp_path / "purchases.txt"
    path.write_text("heading\n00001 19970101 1 2.00\n")
    with pytest.raises(BadData, match="too little to learn from: 0 purchases"):
        train(path, tmp_path / "model")


def test_an_empty_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "purchases.txt"
    path.write_text("heading\n")
    with pytest.raises(BadData, match="there are no purchases"):
        train(path, tmp_path / "model")


def test_a_model_of_other_features_or_other_bytes_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model"):
        Model.load(tmp_path / "nowhere")
    train(data, tmp_path)
    onnx = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(onnx[:-1])
    with pytest.raises(ModelError, match=r"model\.onnx is not the file of model\.json"):
        Model.load(tmp_path)
    card = json.loads((tmp_path / "model.json").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps(card | {"features": ["age"]}))
    with pytest.raises(ModelError, match="made for other features"):
        Model.load(tmp_path)


def _run(folder: Path, data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ENRICHMENT_API_MODEL_DIR": str(folder), "ENRICHMENT_API_DATA_FILE": str(data), "HEADRACE_ENV_FILE": os.devnull}
    command = [sys.executable, "-X", "importtime", "-m", "enrichment_api.train", *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_command(data: Path, tmp_path: Path) -> None:
    first = _run(tmp_path, data, "--if-missing")
    assert first.returncode == 0
    assert "frequency only" in first.stdout
    made = (tmp_path / "model.json").read_bytes()
    again = _run(tmp_path, data, "--if-missing")
    assert again.returncode == 0
    assert "sklearn" in first.stderr
    assert "sklearn" not in again.stderr  # there is a model: nothing heavy is imported
    assert (tmp_path / "model.json").read_bytes() == made
    absent = _run(tmp_path / "other", tmp_path / "absent.txt")
    assert absent.returncode == 1
    assert absent.stderr.splitlines()[-1].endswith("absent.txt: No such file or directory (setting ENRICHMENT_API_DATA_FILE)")
