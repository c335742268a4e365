"""`make demo-ml`: the life of a churn model on real data (CDNOW), with real servers (PostgreSQL, MinIO, MLflow) of its own, step by step.

Three mistakes are planted, and each has to be caught: a feature that knows the future, a model that is worse, data that drift.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from headrace.settings import read_env_file
from ml.scenario import named

ROOT = Path(__file__).resolve().parent.parent
_SINCE = "1998-06-01"
out = Console(highlight=False)


class Unexpected(Exception):
    """A step did not come out as it has to."""


class Demo:
    """The steps, and what they told."""

    def __init__(self, folder: Path, env: Mapping[str, str], of: str) -> None:
        self.folder, self.env, self._of = folder, env, of
        self._python = str(ROOT / ".runtime/venvs/ml/bin/python")
        self.table = Table("step", "what came", "seconds", title="The life of a model", title_justify="left")

    def scenario(self, name: str, **changes: Any) -> str:
        """The file of the scenario with changes."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(named(self._of).read_text()), **changes}))
        return str(path)

    def step(self, *arguments: str) -> dict[str, Any]:
        """A step of `python -m ml` that has to work: what it says. Raises Unexpected."""
        done = self._run(self._python, "-m", "ml", *arguments)
        if done.returncode:
            raise Unexpected(f"ml {arguments[0]}: {done.stderr.strip().splitlines()[-1:]}")
        lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        return lines[0] | lines[-1]

    def caught(self, *arguments: str) -> str:
        """A step that has to be refused: its one line. Raises Unexpected."""
        done = self._run(self._python, "-m", "ml", *arguments)
        if done.returncode != 1:
            raise Unexpected(f"ml {arguments[0]} should have been refused and ended with {done.returncode}: {done.stderr[-300:]}")
        return done.stderr.strip().splitlines()[-1]

    def headrace(self, *arguments: str, works: bool = True) -> str:
        """A command of `headrace models`: what it says. Raises Unexpected."""
        done = self._run(sys.executable, "-m", "cli", "models", *arguments)
        if (done.returncode == 0) is not works:
            raise Unexpected(f"headrace models {arguments[0]}: {done.stderr.strip()}")
        return (done.stdout if works else done.stderr).strip()

    def tell(self, step: str, what: str, began: float) -> None:
        """A row of the table."""
        self.table.add_row(step, what, f"{time.monotonic() - began:.0f}")
        out.print(f"[bold]{step}[/bold]: {what}")

    def _run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)


def live(demo: Demo) -> None:
    """All of it. Raises Unexpected."""
    folder = demo.folder
    churn, run = demo.scenario("churn"), str(folder / "first")
    began = time.monotonic()
    done = demo.step("prepare", "--scenario", churn, "--run", run)
    checked = done["leak_check"]
    what = f"{done['rows']:,} rows as of {done['moments']} months; {checked['rows']:,} of them again without the future: no leak"
    demo.tell("features", what, began)

    began = time.monotonic()
    leaky = demo.scenario("leaky", features="ml.examples.planted:Lifetime")
    demo.tell("a planted leak", demo.caught("prepare", "--scenario", leaky, "--run", str(folder / "leaky")), began)

    began = time.monotonic()
    done = demo.step("train", "--run", run, "--unit", "churn")
    what = f"AUC {done['auc']:.4f} on held-out time (baseline {done['baseline_auc']:.4f}), log loss {done['log_loss']:.4f}"
    what += f" ({done['baseline_log_loss']:.4f}); {done['trials']} trials; ONNX differs by {done['onnx_differs']:.1e} at most"
    demo.tell("training", what, began)

    began = time.monotonic()
    demo.step("judge", "--run", run, "--unit", "churn")
    done = demo.step("register", "--run", run, "--unit", "churn")
    if done["gate"] != "passed":
        raise Unexpected(f"the gate kept the model out: {'; '.join(done['reasons'])}")
    demo.tell("gate and registry", f"{done['model']} {done['version']} passed", began)
    began = time.monotonic()
    demo.tell("promotion", demo.headrace("promote", "churn", str(done["version"]), "--why", "make demo-ml: it beats the baseline"), began)

    began = time.monotonic()
    second = folder / "second"
    second.mkdir()
    for name in ("prepared", "units.json", "prepare.json"):  # the same rows: nothing is computed again
        (second / name).symlink_to(folder / "first" / name)
    (second / "scenario.yaml").write_text(Path(demo.scenario("worse", model="ml.examples.planted:Worse")).read_text())
    for step in ("train", "judge"):
        demo.step(step, "--run", str(second), "--unit", "churn")
    worse = demo.step("register", "--run", str(second), "--unit", "churn")
    if worse["gate"] != "failed":
        raise Unexpected("the gate let a worse model pass")
    refused = demo.headrace("promote", "churn", str(worse["version"]), "--why", "make demo-ml", works=False)
    demo.tell("a worse model", " ".join(refused.split()), began)

    began = time.monotonic()
    done = demo.step("score", "--scenario", churn, "--run", str(folder / "score1"), "--since", _SINCE)
    speed = done["rows"] / (done["feature_seconds"] + done["score_seconds"])
    demo.tell("batch inference", f"{done['rows']:,} rows scored, {speed:,.0f} a second with their features", began)
    began = time.monotonic()
    again = demo.step("score", "--scenario", churn, "--run", str(folder / "score2"), "--since", _SINCE)
    if again["rows"]:
        raise Unexpected(f"{again['rows']} rows were scored twice")
    demo.tell("the same again", "0 rows: nothing is scored twice", began)

    began = time.monotonic()
    cents = demo.scenario("cents", data="ml.examples.planted:in_cents")
    demo.tell(
        "a drifting input", demo.caught("score", "--scenario", cents, "--run", str(folder / "score3"), "--since", "1998-04-01"), began
    )
    began = time.monotonic()
    demo.tell("the way back", demo.headrace("rollback", "churn", "--why", "make demo-ml is over"), began)


def show(name: str, of: str, shift: str, live: Callable[[Demo], None]) -> int:
    """Servers up (of the demonstration `name`, their ports `shift` higher), `live` with scenario `of`, servers down. The exit status."""
    from runtime import java
    from runtime.platform import place_at
    from runtime.servers.spark import jars

    began, file = time.monotonic(), f".runtime/{name}/.env"
    env = {**os.environ, "HEADRACE_ENV_FILE": file}

    def runtime(*command: str) -> int:
        return subprocess.run([sys.executable, "-m", "runtime", *command], cwd=ROOT, env=env, check=False).returncode

    if (ROOT / file).is_file():
        runtime("down")
        runtime("clean", "--yes")
        (ROOT / file).unlink()
    settings = ("PROFILE=lab", "COMPOSE_PROFILES=core")
    if status := runtime("second", "--state-dir", f".runtime/{name}/state", "--shift", shift, *settings) or runtime("up"):
        return status
    try:
        place = place_at(ROOT / file)
        engines = {"SPARK_JARS": str(jars(place)), "JAVA17_HOME": str(java.home()), "HEADRACE_ENV_FILE": str(ROOT / file)}
        demo = Demo(place.data("demo").resolve(), {**os.environ, **read_env_file(ROOT / file), **engines}, of)
        live(demo)
        out.print(demo.table)
        out.print(f"All as it has to be, in {time.monotonic() - began:.0f} s.", style="green")
    except Unexpected as problem:
        print(f"headrace: {name}: {problem}", file=sys.stderr)
        return 1
    else:
        return 0
    finally:
        if os.environ.get("KEEP") == "1":
            out.print(f"Its servers are still running: HEADRACE_ENV_FILE={file} make down")
        else:
            runtime("down")


if __name__ == "__main__":
    sys.exit(show("demo-ml", "churn", "4000", live))
