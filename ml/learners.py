"""Models that scenarios name. A project adds its own anywhere: a scenario has its import path."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna


class _Boosting:
    """Trees that mend one another, on histograms: takes missing values as they are."""

    def space(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Small trees: what is learnt from is noisy."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.2, log=True),
            "max_iter": trial.suggest_int("max_iter", 40, 250),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 4, 32, log=True),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", 20, 500, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", 1e-3, 10, log=True),
        }

    def build(self, parameters: Mapping[str, Any], seed: int) -> Any:
        """Without early stopping: that would hold out rows by chance, and not by time."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(**parameters, early_stopping=False, random_state=seed)


class _Blend(_Boosting):
    """The mean of boosted trees and a logistic regression: trees find what is crooked, the regression goes on where the data have ended
    (times grow beyond all that was learnt from)."""

    def space(self, trial: "optuna.Trial") -> dict[str, Any]:
        """That of the trees, and how much they count."""
        return {**super().space(trial), "trees": trial.suggest_float("trees", 0.2, 0.8)}

    def build(self, parameters: Mapping[str, Any], seed: int) -> Any:
        """Unknown values are the mean to the regression, and something of their own to the trees."""
        import numpy as np
        from sklearn.ensemble import VotingClassifier
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        of_trees = {name: value for name, value in parameters.items() if name != "trees"}
        regression = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=500))
        both = [("trees", super().build(of_trees, seed)), ("regression", regression)]
        weights = np.array([parameters["trees"], 1 - parameters["trees"]])
        return VotingClassifier(both, voting="soft", weights=weights, flatten_transform=False)  # as ONNX has it


Boosting, Blend = _Boosting(), _Blend()
