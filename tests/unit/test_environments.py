"""What Airflow's tasks run in, here and under Kubernetes."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dags.headrace_environments import DBT, MODEL_SIZES, SPARK, container, executor_config
from ml.sizes import SIZES

KUBERNETES = {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor,KubernetesExecutor", "SPARK_IMAGE": "registry.example.com/spark:1"}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one module of Kubernetes' client that is used, with models that are what they were given."""
    models = ModuleType("kubernetes.client.models")
    for name in ("V1Pod", "V1PodSpec", "V1Container", "V1ResourceRequirements"):
        setattr(models, name, type(name, (SimpleNamespace,), {}))
    package: Any = ModuleType("kubernetes.client")
    package.models = models
    for name, module in {"kubernetes": ModuleType("kubernetes"), "kubernetes.client": package, models.__name__: models}.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_a_container_has_the_task_s_image_and_resources() -> None:
    resources = {"cpu": "2", "memory": "2Gi"}
    assert container(SPARK, KUBERNETES) == {
        "name": "base",
        "image": "registry.example.com/spark:1",
        "resources": {"requests": resources, "limits": resources},
    }
    assert "image" not in container(DBT, KUBERNETES | {"DBT_IMAGE": ""})  # that of Airflow's workers


def test_elsewhere_than_under_kubernetes_the_executor_is_told_nothing(client: None) -> None:
    assert executor_config(SPARK, {"AIRFLOW__CORE__EXECUTOR": "LocalExecutor", "SPARK_IMAGE": "x"}) == {}
    assert executor_config(SPARK, {}) == {}


def test_without_its_client_the_executor_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert executor_config(SPARK, KUBERNETES) == {}


def test_under_kubernetes_the_task_s_pod_is_its_own(client: None) -> None:
    pod = executor_config(DBT, KUBERNETES)["pod_override"]
    [base] = pod.spec.containers
    assert (type(pod).__name__, base.name) == ("V1Pod", "base")
    assert base.resources.limits == base.resources.requests == {"cpu": "500m", "memory": "512Mi"}
    assert not hasattr(base, "image")


def test_a_model_s_pod_has_what_its_program_takes() -> None:
    pods = {name: (of.cpu, of.memory) for name, of in MODEL_SIZES.items()}
    assert pods == {name: (str(of.cpus), of.memory) for name, of in SIZES.items()}


@pytest.mark.parametrize("venv", [None, "", "/nonexistent"])
def test_a_task_without_its_environment_says_so_and_runs_nothing_else(venv: str | None, tmp_path: Path) -> None:
    command = ["bash", "-c", MODEL_SIZES["small"].command("python -c 'print(1)'")]
    settings = {"PATH": "/usr/bin:/bin"} | ({} if venv is None else {"MODELS_VENV": venv})
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    makes = "make up PROFILE=models makes it (containers: docs/containers.md)\n"
    assert (done.returncode, done.stdout) == (1, f"there is no environment for this task here (MODELS_VENV={venv or ''}): {makes}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    done = subprocess.run(command, env={"MODELS_VENV": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n")
