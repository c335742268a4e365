"""Train the model of the repurchase score: will this customer buy again within 90 days?

    python -m enrichment_api.train [--if-missing]

Split by time, so that nothing from the test's future is learnt: a purchase is learnt from only if its 90 days ended before the
test begins, and is tested only if its 90 days ended before the data does. Depth and number of trees were chosen on the training
period alone (learnt until April 1997, tried on July to September 1997).
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from enrichment_api.settings import TrainSettings
from headrace.exported import onnx_file
from headrace.settings import use_env_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from enrichment_api.history import History
    from enrichment_api.model import Card, Metrics

SEED = 7
TEST_DAYS = 91  # the length of the test period
TOLERANCE = 1e-5  # between scikit-learn's and ONNX's probabilities
BASELINES: Mapping[str, tuple[str, ...]] = {
    "frequency only": ("is_new", "frequency"),
    "recency only": ("is_new", "recency_days"),
}


class Split(NamedTuple):
    """Which rows are learnt from and which are tested (two masks); the rest are in neither."""

    train: "NDArray[np.bool_]"
    test: "NDArray[np.bool_]"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m enrichment_api.train", description="Train the repurchase model.")
    parser.add_argument("--if-missing", action="store_true", help="do nothing where there is a model that this code can use")
    args = parser.parse_args()
    use_env_file()
    settings = TrainSettings.load()
    if args.if_missing and _usable(settings.model_dir):
        return
    from enrichment_api.history import BadData

    try:
        card = train(settings.data_file, settings.model_dir)
    except BadData as error:
        sys.exit(f"enrichment_api.train: {error} (setting ENRICHMENT_API_DATA_FILE)")
    _print(card, settings.model_dir)


def _usable(folder: Path) -> bool:
    from enrichment_api.model import ModelError, read_card

    try:
        read_card(folder)
    except ModelError as error:
        print(error, file=sys.stderr)
        return False
    return True


def split(history: "History") -> Split:
    """Split the rows of `history` by time."""
    import numpy as np

    from headrace.features import HORIZON_DAYS

    horizon = np.timedelta64(HORIZON_DAYS, "D")
    test_until = history.time[-1] - horizon
    test_from = test_until - np.timedelta64(TEST_DAYS - 1, "D")
    return Split(history.time + horizon < test_from, (history.time >= test_from) & (history.time <= test_until))


def outcome(history: "History") -> "NDArray[np.bool_]":
    """Whether each purchase was followed by another of its customer within the horizon (on a later day)."""
    import numpy as np

    from headrace.features import HORIZON_DAYS

    # NaT, for no later purchase, compares false.
    answer: NDArray[np.bool_] = history.next_purchase_at - history.time <= np.timedelta64(HORIZON_DAYS, "D")
    return answer


def train(data_file: Path, folder: Path) -> "Card":
    """Train on the purchases in `data_file` and write the model and its card to `folder`. Raises BadData."""
    import numpy as np
    from sklearn.ensemble import GradientBoostingClassifier

    from enrichment_api.history import BadData, read
    from enrichment_api.model import Card, write
    from headrace.features import FEATURES, HORIZON_DAYS, MODEL, features

    history = read(data_file)
    rows, _ = features(history.time, history.quantity, history.amount_usd, history.state)
    bought_again = outcome(history)
    train_rows, test_rows = split(history)
    for name, mask in (("learn from", train_rows), ("test on", test_rows)):
        if len(np.unique(bought_again[mask])) < 2:
            raise BadData(f"{data_file}: too little to {name}: {mask.sum()} purchases, and not of both outcomes")
    model = GradientBoostingClassifier(max_depth=4, learning_rate=0.05, n_estimators=100, min_samples_leaf=200, random_state=SEED).fit(
        rows[train_rows], bought_again[train_rows]
    )
    onnx = export(model, rows)
    metrics = {MODEL: measure(bought_again[test_rows], model.predict_proba(rows[test_rows])[:, 1])}
    for name, columns in BASELINES.items():
        few = np.log1p(rows[:, [FEATURES.index(column) for column in columns]])
        metrics[name] = measure(bought_again[test_rows], _baseline(few[train_rows], bought_again[train_rows], few[test_rows]))
    digest = hashlib.sha256(onnx).hexdigest()
    now = datetime.now(UTC)
    card = Card(
        model=MODEL,
        version=f"{now:%Y-%m-%d}-{digest[:8]}",
        trained_at=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        horizon_days=HORIZON_DAYS,
        features=FEATURES,
        onnx_sha256=digest,
        data_sha256=hashlib.sha256(data_file.read_bytes()).hexdigest(),
        train_rows=int(train_rows.sum()),
        train_until=_day(history.time[train_rows].max()),
        test_rows=int(test_rows.sum()),
        test_from=_day(history.time[test_rows].min()),
        test_until=_day(history.time[test_rows].max()),
        metrics=metrics,
        libraries={name: version(name) for name in ("scikit-learn", "skl2onnx", "onnxruntime", "numpy")},
        seed=SEED,
    )
    write(folder, onnx, card)
    return card


def measure(truth: "NDArray[np.bool_]", probability: "NDArray[Any]") -> "Metrics":
    """AUC and log loss of `probability` against `truth`."""
    from sklearn.metrics import log_loss, roc_auc_score

    from enrichment_api.model import Metrics

    return Metrics(auc=round(float(roc_auc_score(truth, probability)), 4), log_loss=round(float(log_loss(truth, probability)), 4))


def _baseline(train: "NDArray[Any]", truth: "NDArray[np.bool_]", test: "NDArray[Any]") -> "NDArray[Any]":
    from sklearn.linear_model import LogisticRegression

    probability: NDArray[Any] = LogisticRegression().fit(train, truth).predict_proba(test)[:, 1]
    return probability


def export(model: Any, rows: "NDArray[np.float32]") -> bytes:
    """`model` as ONNX, which gives for all of `rows` the probabilities that scikit-learn gives. Raises AssertionError where it does not."""
    import numpy as np
    import onnxruntime
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    converted = convert_sklearn(
        model,
        name="repurchase",
        initial_types=[("features", FloatTensorType([None, rows.shape[1]]))],
        options={id(model): {"zipmap": False}},
    )
    onnx = onnx_file(converted)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    got = session.run(["probabilities"], {"features": rows})[0]
    apart = float(np.abs(got - model.predict_proba(rows)).max())
    if apart > TOLERANCE:
        raise AssertionError(f"ONNX and scikit-learn differ by {apart:.2g} (at most {TOLERANCE:.0e} is allowed)")
    return onnx


def _day(moment: "np.datetime64") -> str:
    return str(moment.astype("M8[D]"))


def _print(card: "Card", folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{card.model} {card.version}: buys again within {card.horizon_days} days?",
        caption=f"learnt from {card.train_rows:,} purchases until {card.train_until}, "
        f"tested on {card.test_rows:,} from {card.test_from} to {card.test_until}; in {folder}",
    )
    table.add_column("model")
    table.add_column("AUC", justify="right")
    table.add_column("log loss", justify="right")
    for name, metrics in card.metrics.items():
        table.add_row(name, f"{metrics.auc:.4f}", f"{metrics.log_loss:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
