"""A learner that is slow, and says on which machine of a Ray cluster it was."""

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.learners import _Boosting

if TYPE_CHECKING:
    import optuna


class _Slow(_Boosting):
    def space(self, trial: "optuna.Trial") -> dict[str, Any]:
        return {"max_iter": trial.suggest_int("max_iter", 5, 20)}

    def build(self, parameters: Mapping[str, Any], seed: int) -> Any:
        import ray

        if ray.is_initialized():
            Path(os.environ["SEEN"], f"{ray.util.get_node_ip_address()}-{uuid.uuid4().hex}").touch()
            time.sleep(1)
        return super().build(parameters, seed)


Slow = _Slow()
