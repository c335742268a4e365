"""Small models in ONNX, made at once: versions that differ in what they answer, one that fails, one that gives nonsense."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from enrichment_api.model import CARD_FILE, ONNX_FILE, Card, Metrics
from headrace.features import FEATURES, HORIZON_DAYS, MODEL


def constant(score: float) -> bytes:
    """A model that gives each row `score`, whatever it is (not a number included)."""
    return _made(
        [
            helper.make_node("Mul", ["features", "zeros"], ["none"]),
            helper.make_node("MatMul", ["none", "weights"], ["nothing"]),
            helper.make_node("Add", ["nothing", "scores"], ["probabilities"]),
        ],
        zeros=np.zeros((1, len(FEATURES)), np.float32),
        weights=np.zeros((len(FEATURES), 2), np.float32),
        scores=np.array([1 - score, score], np.float32),
    )


def first_feature() -> bytes:
    """A model that gives each row its first feature."""
    return _made([helper.make_node("Gather", ["features", "first"], ["probabilities"], axis=1)], first=np.array([0, 0], np.int64))


def of_all_features() -> bytes:
    """A model whose score depends on each feature."""
    weights = np.linspace(0.01, 0.05, len(FEATURES), dtype=np.float32)
    return _made(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sums"]),
            helper.make_node("Tanh", ["sums"], ["signed"]),
            helper.make_node("Abs", ["signed"], ["probabilities"]),
        ],
        weights=np.column_stack([weights, weights]),
    )


def nonsense_for_large_quantities(score: float, above: float) -> bytes:
    """A model that gives `score`, but not a number where the first feature is greater than `above`: it passes a trial with small ones."""
    return _made(
        [
            helper.make_node("Gather", ["features", "first"], ["quantity"], axis=1),
            helper.make_node("Greater", ["quantity", "above"], ["large"]),
            helper.make_node("Where", ["large", "nan", "scores"], ["probabilities"]),
        ],
        first=np.array([0, 0], np.int64),
        above=np.array([above], np.float32),
        nan=np.array([np.nan], np.float32),
        scores=np.array([1 - score, score], np.float32),
    )


def fails_for_large_quantities(score: float, above: float) -> bytes:
    """A model whose runtime raises where the first feature of the first row is greater than `above`: an index out of its bounds."""
    return _made(
        [
            helper.make_node("Gather", ["features", "zero"], ["row"], axis=0),
            helper.make_node("Gather", ["row", "zero"], ["quantity"], axis=0),
            helper.make_node("Greater", ["quantity", "above"], ["large"]),
            helper.make_node("Cast", ["large"], ["index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["one", "index"], ["factor"], axis=0),
            helper.make_node("Mul", ["features", "zeros"], ["none"]),
            helper.make_node("MatMul", ["none", "weights"], ["nothing"]),
            helper.make_node("Mul", ["scores", "factor"], ["given"]),
            helper.make_node("Add", ["nothing", "given"], ["probabilities"]),
        ],
        zero=np.array(0, np.int64),
        above=np.array(above, np.float32),
        one=np.array([1], np.float32),
        zeros=np.zeros((1, len(FEATURES)), np.float32),
        weights=np.zeros((len(FEATURES), 2), np.float32),
        scores=np.array([1 - score, score], np.float32),
    )


def _made(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> bytes:
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, len(FEATURES)])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def release(folder: Path, version: str, model: bytes, change: Callable[[Card], Card] = lambda card: card) -> Path:
    """Write the model as a released version to `folder / version`."""
    digest = hashlib.sha256(model).hexdigest()
    card = Card(
        model=MODEL,
        version=version,
        trained_at="2026-11-22T00:00:00Z",
        horizon_days=HORIZON_DAYS,
        features=FEATURES,
        onnx_sha256=digest,
        data_sha256=digest,
        train_rows=1,
        train_until="2026-01-01",
        test_rows=1,
        test_from="2026-01-01",
        test_until="2026-01-01",
        metrics={MODEL: Metrics(auc=0.5, log_loss=0.7)},
        libraries={},
        seed=7,
    )
    place = folder / version
    place.mkdir(parents=True, exist_ok=True)
    (place / ONNX_FILE).write_bytes(model)
    (place / CARD_FILE).write_bytes(msgspec.json.encode(change(card)))
    return place
