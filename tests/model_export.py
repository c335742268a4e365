"""What is exported gives what was trained: `python -m tests.model_export`, in the models' environment (test_models_features.py runs it)."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression

from ml.errors import NotEqual
from ml.export import Scorer, assert_equal, export


def trees() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=5, early_stopping=False)


def neighbours() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of two neighbours in float32, the lower one's last bit is set: what lies between them is rounded to the upper one."""
    lower = np.nextafter(np.float32(1), np.float32(2))
    x = np.repeat(np.array([[lower], [np.nextafter(lower, np.float32(2))]], np.float32), 50, axis=0)
    return x, np.repeat([0, 1], 50)


def main() -> None:
    x, y = neighbours()
    blend = VotingClassifier([("trees", trees()), ("regression", LogisticRegression())], voting="soft", flatten_transform=False)
    made: Any
    for made in (trees(), blend):
        made.fit(x, y)
        before = made.predict_proba(x)
        onnx, apart = export(made, x)
        assert apart < 1e-6
        assert np.array_equal(made.predict_proba(x), before)  # no prediction has changed
        scores = Scorer(onnx)(x)
        assert scores[0] < 0.5 < scores[-1]
        print(hashlib.sha256(onnx).hexdigest())
    try:
        assert_equal(trees().fit(x, 1 - y), onnx, x)
    except NotEqual as refused:
        print(refused)


if __name__ == "__main__":
    main()
