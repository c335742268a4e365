"""Where the trials of a tuning run: here, one after the other, or on the machines of a Ray cluster, as many at a time as fit.

Optuna is asked and told by one loop (`ml/train.py`, `tune`), which does not know where. Every machine has the environment `ml` and this
code (and a project's own) on its PYTHONPATH; the machine that trains is one of the cluster.
"""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.errors import in_a_line
from ml.contract import Learner
from ml.errors import Away, BadData
from ml.keeping import threads
from ml.measure import log_loss
from ml.rows import Rows
from ml.scenario import load

Parameters = Mapping[str, Any]
_CONNECT_SECONDS = 10.0
_RETRIES = 5  # of a trial whose machine is lost


class Given(NamedTuple):
    """What all trials of a tuning share. `learner` is an import path; a trial takes `cpus`."""

    learner: str
    seed: int
    cpus: int
    x: NDArray[np.float32]
    y: NDArray[np.float64]
    judged_x: NDArray[np.float32]
    judged_y: NDArray[np.float64]

    @classmethod
    def of(cls, learner: str, seed: int, cpus: int, rows: Rows) -> "Given":
        """Learn from what `learn` says, be judged by what `tune` says."""
        learn, tune = rows.masks.learn, rows.masks.tune
        return cls(learner, seed, cpus, rows.x[learn], rows.y[learn], rows.x[tune], rows.y[tune])


class Trials(Protocol):
    """Runs trials. `machines` are those that have run any."""

    machines: set[str]

    def at_once(self) -> int:
        """How many may run at a time by now."""

    def losses(self, parameters: Sequence[Parameters]) -> list[float]:
        """The log loss of each. Raises Away, and what a learner raises."""


def loss(given: Given, parameters: Parameters) -> float:
    """The log loss of one trial."""
    learner: Learner = load(given.learner, "model")
    estimator = learner.build(parameters, given.seed).fit(given.x, given.y)
    return log_loss(given.judged_y, estimator.predict_proba(given.judged_x)[:, 1])


class _Here:
    def __init__(self, given: Given) -> None:
        self.machines = {"here"}
        self._given = given

    def at_once(self) -> int:
        return 1

    def losses(self, parameters: Sequence[Parameters]) -> list[float]:
        return [loss(self._given, each) for each in parameters]


class _OnRay:
    def __init__(self, ray: Any, address: str, given: Given) -> None:
        self.machines: set[str] = set()
        self._ray, self._address, self._cpus = ray, address, given.cpus
        self._given = ray.put(given)
        self._far = ray.remote(num_cpus=given.cpus, max_retries=_RETRIES)(_far)

    def at_once(self) -> int:
        return max(1, int(self._ray.cluster_resources().get("CPU", 0)) // self._cpus)

    def losses(self, parameters: Sequence[Parameters]) -> list[float]:
        from ray.exceptions import RayError, RayTaskError

        try:
            found = self._ray.get([self._far.remote(self._given, each) for each in parameters])
        except RayTaskError as error:
            raise error.cause or error from None
        except RayError as error:
            raise _away(self._address, error) from None
        self.machines |= {machine for _, machine in found}
        return [value for value, _ in found]


def _far(given: Given, parameters: Parameters) -> tuple[float, str]:
    """On a machine of the cluster: the loss, and which machine it was."""
    import ray

    threads(given.cpus)
    return loss(given, parameters), ray.get_runtime_context().get_node_id()


@contextmanager
def trials(given: Given, address: str) -> Iterator[Trials]:
    """Here where `address` is empty, else on the Ray cluster there. Raises Away, BadData."""
    if not address:
        yield _Here(given)
        return
    import ray

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()  # Ray itself tries for minutes
        ray.init(address=address, logging_level="error", log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise _away(address, error) from None
    try:
        if (there := int(ray.cluster_resources().get("CPU", 0))) < given.cpus:
            raise BadData(f"Ray at {address} (ML_RAY_ADDRESS): it has {there} CPUs, a trial takes {given.cpus}")
        yield _OnRay(ray, address, given)
    finally:
        ray.shutdown()


def _away(address: str, error: Exception) -> Away:
    return Away(f"Ray at {address} (ML_RAY_ADDRESS): {in_a_line(error)}")
