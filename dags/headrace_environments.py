"""What a task runs in, declared beside it: a virtual environment here, an image with resources of its own under Kubernetes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Environment:
    """`venv` and `image` are names of settings: of the virtual environment's folder; of the image, in which it stands at the same place.

    `cpu` and `memory` are what a pod asks for and may at most have, as Kubernetes writes them. `make up` makes it with `profile`.
    """

    venv: str
    image: str
    cpu: str
    memory: str
    profile: str = "full"

    def command(self, command: str) -> str:
        """What a shell is to do to run `command` in it; where there is no such environment, to say who makes it."""
        makes = f"make up PROFILE={self.profile} makes it (containers: docs/containers.md)"
        missing = f"there is no environment for this task here ({self.venv}=${self.venv}): {makes}"
        return f'[ -x "${{{self.venv}:-/none}}/bin/python" ] || {{ echo "{missing}"; exit 1; }}; exec "${self.venv}/bin/"{command}'


# Spark's driver, with local mode all of it: CURATION_MEMORY of heap, and what a JVM and Python need beside it.
SPARK = Environment("SPARK_VENV", "SPARK_IMAGE", cpu="2", memory="2Gi")
# dbt, and programs that ask Trino: the work is Trino's.
DBT = Environment("DBT_VENV", "DBT_IMAGE", cpu="500m", memory="512Mi")
# What computes features and scores: Spark, as above, with ML_SPARK_MEMORY of heap.
MODELS = Environment("MODELS_VENV", "MODELS_IMAGE", cpu="2", memory="4Gi", profile="models")
# What makes one model, by the size that its scenario gives it (ml/sizes.py says the same to the program itself).
MODEL_SIZES = {
    "small": Environment("MODELS_VENV", "MODELS_IMAGE", cpu="1", memory="1Gi", profile="models"),
    "large": Environment("MODELS_VENV", "MODELS_IMAGE", cpu="2", memory="4Gi", profile="models"),
}


def dbt_paths(root: Path, target: Path, log: Path) -> dict[str, str]:
    """What tells dbt where its project is in the checkout `root`, and where it leaves what it makes and what it says."""
    project = str(root / "dags" / "models")
    return {"DBT_PROJECT_DIR": project, "DBT_PROFILES_DIR": project, "DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(log)}


def container(of: Environment, env: Mapping[str, str]) -> dict[str, Any]:
    """What the task's container has of its own, in Kubernetes' words. Without an image it is Airflow's `worker_container` image."""
    resources = {"cpu": of.cpu, "memory": of.memory}
    own = {"name": "base", "resources": {"requests": resources, "limits": resources}}
    return own | ({"image": env[of.image]} if env.get(of.image) else {})


def executor_config(of: Environment, env: Mapping[str, str]) -> dict[str, Any]:
    """What Airflow's KubernetesExecutor is told of a task; nothing where it is not configured, or its client is not installed."""
    if "KubernetesExecutor" not in env.get("AIRFLOW__CORE__EXECUTOR", ""):
        return {}
    try:
        from kubernetes.client import models  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return {}
    own = container(of, env)
    resources = models.V1ResourceRequirements(**own.pop("resources"))
    base = models.V1Container(**own, resources=resources)
    return {"pod_override": models.V1Pod(spec=models.V1PodSpec(containers=[base]))}
