"""Models as ONNX: exported, asserted equal, and run."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from headrace.exported import onnx_file
from ml.errors import NotEqual

TOLERANCE = 1e-5  # between probabilities
_INPUT, _OUTPUT = "features", "probabilities"


class Scorer:
    """An exported model."""

    def __init__(self, onnx: bytes, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # not what the converter leaves over and nobody needs
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    @classmethod
    def of(cls, onnx: bytes, columns: int) -> Self:
        """One that takes rows of so many columns. Raises NotEqual."""
        scorer = cls(onnx)
        [given] = scorer._session.get_inputs()
        if given.shape[1] != columns:
            raise NotEqual(f"the exported model takes {given.shape[1]} columns, and rows have {columns}: they are of different features")
        return scorer

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each row."""
        if not len(x):
            return np.empty(0, np.float32)
        found: NDArray[np.float32] = self._session.run([_OUTPUT], {_INPUT: x})[0][:, 1]
        return found


def export(estimator: Any, x: NDArray[np.float32]) -> tuple[bytes, float]:
    """The ONNX form of a fitted estimator, and the largest difference of its probabilities over `x`. Raises NotEqual above TOLERANCE."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    single_precision(estimator)
    model = to_onnx(
        estimator,
        initial_types=[(_INPUT, FloatTensorType([None, x.shape[1]]))],
        options={id(estimator): {"zipmap": False}},
    )
    onnx = onnx_file(model)
    return onnx, assert_equal(estimator, onnx, x)


def single_precision(estimator: Any) -> None:
    """Let thresholds of boosted trees be numbers of float32, as ONNX has them: of two neighbours, the lower one.

    Rows are float32, so no prediction changes. Rounded to the nearest instead, as the converter does, a row right above would go left.
    """
    for part in _parts(estimator):
        for trees in getattr(part, "_predictors", ()):
            for tree in trees:
                exact = tree.nodes["num_threshold"]
                near = exact.astype(np.float32)
                tree.nodes["num_threshold"] = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def _parts(estimator: Any) -> Iterator[Any]:
    """It, and what it is made of."""
    yield estimator
    for part in (*getattr(estimator, "estimators_", ()), *(each for _, each in getattr(estimator, "steps", ()))):
        yield from _parts(part)


def assert_equal(estimator: Any, onnx: bytes, x: NDArray[np.float32]) -> float:
    """The largest difference of both forms' probabilities over `x`. Raises NotEqual above TOLERANCE."""
    here, there = estimator.predict_proba(x)[:, 1], Scorer.of(onnx, x.shape[1])(x)
    differs = np.abs(here - there)
    if not (differs <= TOLERANCE).all():
        worst = int(np.nanargmax(differs)) if not np.isnan(differs).all() else 0
        raise NotEqual(
            f"{int((~(differs <= TOLERANCE)).sum())} of {len(x)} rows are scored differently by ONNX: row {worst} {there[worst]:.6f}, by"
            f" scikit-learn {here[worst]:.6f} (at most {TOLERANCE:g} apart)"
        )
    return float(differs.max(initial=0.0))
