"""What a project brings for a scenario of its own, by import path: data, features and a model.

`data` is a function `(SparkSession, Mapping[str, str]) -> Data`, `features` an object of the form `FeatureSet`, `model` one of `Learner`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import optuna
    from pyspark.sql import DataFrame

KNOWN_AT, AS_OF, LABEL, WANTED = "known_at", "as_of", "label", "wanted"
Tables = Mapping[str, "DataFrame"]


@dataclass(frozen=True)
class Data:
    """`tables` are facts, each row with the moment `known_at` (UTC) from which on anybody could know it. `snapshot` names exactly these
    rows: the sum of a file, the snapshot of a table."""

    tables: Tables
    snapshot: str


class FeatureSet(Protocol):
    """Features, defined once: for training and for scoring.

    The rule: the features of a row follow from what was known strictly before its `as_of`, and from the row of `asked` itself.
    `ml/leaks.py` checks it by cutting off the future.
    """

    key: tuple[str, ...]  # with `as_of` it names a row
    columns: tuple[str, ...]  # the model's input: numbers; null (NaN) where unknown
    segment: str  # a column of text by which the gate judges parts on their own

    def asked(self, tables: Tables) -> "DataFrame":
        """All rows that a model might be asked for: the key, `as_of`, what is known of the row by then."""

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """`asked` with `columns` and `segment`: one row for each."""

    def label(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """`asked` with `label`: 1.0 or 0.0, null where it never will be known."""


class Ranked(FeatureSet, Protocol):
    """A FeatureSet whose rows are candidates: those with the same `rank_by` and `as_of` are a list, to be shown best first.

    `label` adds `wanted`: how many there should be in the row's list, also those that are no candidates.
    """

    rank_by: tuple[str, ...]


class Learner(Protocol):
    """A kind of model of scikit-learn that ONNX knows."""

    def space(self, trial: "optuna.Trial") -> dict[str, Any]:
        """The parameters to try next."""

    def build(self, parameters: Mapping[str, Any], seed: int) -> Any:
        """An estimator with `fit` and `predict_proba`, not yet fitted."""


Message = tuple[str, int, int, bytes | None]  # topic, partition, offset, value
Written = tuple[str, bytes, bytes]  # topic, key, value


class Answers(Protocol):
    """What `python -m ml stream` does with the messages of a topic."""

    topics: Sequence[str]  # the one that is read, then those that have to be there besides

    def open(self) -> Callable[[Sequence[Message], Collection[str]], Sequence[Written]]:
        """Called once in each worker (and once before, so that a person hears what is wrong). Gives a function of the messages of a batch
        and the names of all topics, which says what to write. A batch may come again: what it writes then must be the same to who reads."""
