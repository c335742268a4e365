"""A trained model as it stands on disk (`model.onnx` and its card, `model.json`), loaded and applied to rows of features."""

import hashlib
import os
from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from headrace.errors import in_a_line
from headrace.features import FEATURES, MODEL

ONNX_FILE, CARD_FILE = "model.onnx", "model.json"
_WARM_UP = 20  # calls before a model serves: its first ones take several times as long


class Metrics(msgspec.Struct, frozen=True):
    """How well probabilities fit what came: `auc` is of their order (0.5 is chance, 1 perfect), `log_loss` of their values (0 is best)."""

    auc: float
    log_loss: float


class Card(msgspec.Struct, kw_only=True, frozen=True):
    """What a model is, what it was made from, and how good it is.

    `version` ends with the head of the ONNX file's SHA-256; before it stands the date of training (UTC), or the number in the registry.
    `metrics` are of the rows held out:
    those of the model under its own name, of each baseline under its own.
    """

    model: str
    version: str
    trained_at: str
    horizon_days: int
    features: tuple[str, ...]
    onnx_sha256: str
    data_sha256: str  # of the file; of data of the lake, what names their snapshot
    train_rows: int
    train_until: str  # the last purchase learnt from; what came within the horizon after it is complete before `test_from`
    test_rows: int
    test_from: str
    test_until: str
    metrics: dict[str, Metrics]
    libraries: dict[str, str]
    seed: int


class ModelError(Exception):
    """There is no usable model; the text says what to do."""


def read_card(folder: Path) -> Card:
    """The card of the model in `folder`. Raises ModelError where there is none that this code can use."""
    try:
        card = msgspec.json.decode((folder / CARD_FILE).read_bytes(), type=Card)
    except OSError as error:
        raise ModelError(f"{folder}: no model ({error.strerror}): `python -m enrichment_api.train` makes one") from None
    except msgspec.DecodeError as error:
        raise ModelError(f"{folder / CARD_FILE}: {error}: make a new model by `python -m enrichment_api.train`") from None
    if (card.model, card.features) != (MODEL, FEATURES):
        raise ModelError(f"{folder}: this model was made for other features: make a new one by `python -m enrichment_api.train`")
    if not (folder / ONNX_FILE).is_file():
        raise ModelError(f"{folder}: there is no {ONNX_FILE}: make a new model by `python -m enrichment_api.train`")
    return card


class Model:
    """A loaded model."""

    def __init__(self, card: Card, onnx: bytes) -> None:
        self.card = card
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a batch takes milliseconds: threads would cost more than they give
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # not what the converter leaves over and nobody needs
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The model in `folder`. Raises ModelError where there is none, or the files do not belong together."""
        card = read_card(folder)
        try:
            onnx = (folder / ONNX_FILE).read_bytes()
        except OSError as error:
            raise ModelError(f"{folder / ONNX_FILE}: {error.strerror}") from None
        if hashlib.sha256(onnx).hexdigest() != card.onnx_sha256:
            raise ModelError(f"{folder}: {ONNX_FILE} is not the file of {CARD_FILE}: make a new model by `python -m enrichment_api.train`")
        try:
            return cls(card, onnx)
        except Exception as error:  # the runtime's own, of which there are many kinds
            raise ModelError(f"{folder}: {ONNX_FILE} cannot be loaded: {in_a_line(error)}") from None

    def score(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probability of each row of features, in one call of the runtime."""
        scores: NDArray[np.float32] = self._session.run(["probabilities"], {"features": rows})[0][:, 1]
        return scores


def write(folder: Path, onnx: bytes, card: Card) -> None:
    """The card goes last and names the hash of the model: a torn write is found, never served. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((ONNX_FILE, onnx), (CARD_FILE, msgspec.json.format(msgspec.json.encode(card), indent=2))):
        new = folder / f".{name}-{os.getpid()}"
        new.write_bytes(content)
        os.replace(new, folder / name)


def tried(model: Model, folder: Path) -> Model:
    """`model`, after some calls: it gives a probability for each row, and is warm. Raises ModelError."""
    for rows in (np.zeros((1, len(FEATURES)), np.float32), np.ones((1000, len(FEATURES)), np.float32)):
        for _ in range(_WARM_UP if len(rows) == 1 else 1):
            try:
                scores = model.score(rows)
            except Exception as error:  # whatever the runtime raises
                raise ModelError(f"{folder}: the model cannot score: {in_a_line(error)}") from None
        if scores.shape != (len(rows),) or not ((scores >= 0) & (scores <= 1)).all():
            raise ModelError(f"{folder}: the model gives no probability for each row")
    return model
