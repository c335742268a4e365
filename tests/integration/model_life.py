"""A registry of one's own over the platform's servers, and the life of models in it, step by step."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ml.scenario import Scenario, named
from runtime.component import Place
from runtime.servers.mlflow import Mlflow
from tests import model_servers
from tests.collector_real_kafka import ROOT
from tests.integration import lakes

_SHARED = ("POSTGRES_URL", "LAKE_CATALOG_URL", "LAKE_WAREHOUSE", "S3_ENDPOINT", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY")


@dataclass
class Life:
    """A registry of our own over the servers, a namespace of the lake, and scenarios in a folder."""

    place: Place
    folder: Path
    namespace: str

    @property
    def url(self) -> str:
        return self.place.env["MLFLOW_URL"]

    def scenario(self, name: str, of: str = "churn", **changes: Any) -> Path:
        """A scenario of ours with changes."""
        path = self.folder / f"{name}.yaml"
        ours = msgspec.to_builtins(Scenario.read(named(of)))
        path.write_text(yaml.safe_dump({**ours, "table": f"{self.namespace}.scores", **changes}))
        return path

    def step(self, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return model_servers.step(self.place, *arguments, **settings)

    def done(self, *arguments: str) -> dict[str, Any]:
        """What a step that works says."""
        ended = self.step(*arguments)
        assert ended.returncode == 0, ended.stderr[-3000:]
        said: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return said

    def headrace(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "HEADRACE_ENV_FILE": str(self.place.state / ".env")}
        return subprocess.run(
            [str(ROOT / ".venv/bin/python"), "-m", "cli", "models", *arguments],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@contextmanager
def life_in(folder: Path, **settings: str) -> Iterator[Life]:
    """MLflow of our own with a database, a bucket's folder and a namespace that nobody else has, until the block ends."""
    mark = uuid.uuid4().hex[:8]
    own = {"MLFLOW_DATABASE_URL": f"{os.environ['POSTGRES_URL']}/mlflow_{mark}", "MLFLOW_ARTIFACTS": f"s3://lake/mlflow-{mark}"}
    data = {"ENRICHMENT_API_DATA_FILE": str(ROOT / ".runtime/data/cdnow/CDNOW_master.txt")}
    place = model_servers.place_in(folder, {**{name: os.environ[name] for name in _SHARED}, **own, **data, **settings})
    model_servers.bring(place)
    namespace = f"gold_test_{mark}"
    with model_servers.running(place, Mlflow()):
        yield Life(place, folder, namespace)
    lakes.drop(namespace)
