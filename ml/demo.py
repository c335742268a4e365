"""`make demo-ml`: the life of a churn model on real data (CDNOW), with real servers (PostgreSQL, MinIO, MLflow) of its own, step by step.

Three mistakes are planted, and each has to be caught: a feature that knows the future, a model that is worse, data that drift.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from headrace.settings import read_env_file
from ml.scenario import named

ROOT = Path(__file__).resolve().parent.parent
HOME = ".runtime/demo-ml"
ENV_FILE, STATE_DIR = f"{HOME}/.env", f"{HOME}/state"
PORT_SHIFT = "4000"
_SINCE = "1998-06-01"
out = Console(highlight=False)


class Unexpected(Exception):
    """A step did not come out as it has to."""


class Demo:
    """The steps, and what they told."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self._folder, self._env = folder, env
        self._python = str(ROOT / ".runtime/venvs/ml/bin/python")
        self.table = Table("step", "what came", "seconds", title="The life of a model", title_justify="left")

    def scenario(self, name: str, **changes: Any) -> str:
        """The file of churn with changes."""
        path = self._folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(named("churn").read_text()), **changes}))
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
        return subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True, text=True, check=False)


def live(demo: Demo, folder: Path) -> None:
    """All of it. Raises Unexpected."""
    churn, run = demo.scenario("churn"), str(folder / "first")
    began = time.monotonic()
    done = demo.step("prepare", "--scenario", churn, "--run", run)
    checked = done["leak_check"]
    demo.tell(
        "features",
        f"{done['rows']:,} rows as of {done['moments']} months; {checked['rows']:,} of them again without the future: no leak",
        began,
    )

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


def main() -> int:
    """Servers up, the life, servers down."""
    from runtime import java
    from runtime.platform import place_at
    from runtime.servers.spark import jars

    began = time.monotonic()
    env = {**os.environ, "HEADRACE_ENV_FILE": ENV_FILE}

    def runtime(*command: str) -> int:
        return subprocess.run([sys.executable, "-m", "runtime", *command], cwd=ROOT, env=env, check=False).returncode

    if (ROOT / ENV_FILE).is_file():
        runtime("down")
        runtime("clean", "--yes")
        (ROOT / ENV_FILE).unlink()
    settings = ("PROFILE=lab", "COMPOSE_PROFILES=core")
    if status := runtime("second", "--state-dir", STATE_DIR, "--shift", PORT_SHIFT, *settings) or runtime("up"):
        return status
    try:
        place = place_at(ROOT / ENV_FILE)
        folder = place.data("demo").resolve()
        engines = {"SPARK_JARS": str(jars(place)), "JAVA17_HOME": str(java.home()), "HEADRACE_ENV_FILE": str(ROOT / ENV_FILE)}
        demo = Demo(folder, {**os.environ, **read_env_file(ROOT / ENV_FILE), **engines})
        live(demo, folder)
        out.print(demo.table)
        out.print(f"All as it has to be, in {time.monotonic() - began:.0f} s.", style="green")
    except Unexpected as problem:
        print(f"headrace: demo-ml: {problem}", file=sys.stderr)
        return 1
    else:
        return 0
    finally:
        if os.environ.get("KEEP") == "1":
            out.print(f"Its servers are still running: HEADRACE_ENV_FILE={ENV_FILE} make down")
        else:
            runtime("down")


if __name__ == "__main__":
    sys.exit(main())
