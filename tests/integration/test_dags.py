"""The DAGs as the real Airflow reads and runs them, in Airflow's own environment."""

import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dags.report.markdown import PARTS

pytestmark = pytest.mark.usefixtures("platform")

ROOT = Path(__file__).parent.parent.parent
PYTHON = str(ROOT / ".runtime/venvs/airflow/bin/python")
READ = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
from pathlib import Path
bag = BundleDagBag(sys.argv[1], bundle_path=Path(sys.argv[1]), bundle_name="dags")
print(json.dumps({
    "errors": bag.import_errors,
    "heavy": sorted({"pyspark", "dbt", "pandas", "pyiceberg", "trino"} & set(sys.modules)),
    "dags": {dag.dag_id: {
        "tasks": {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
        "runs": dag.max_active_runs,
        "catchup": dag.catchup,
        "begins": str(dag.start_date and dag.start_date.date()),
        "schedule": dag.schedule,
        "documented": bool(dag.doc_md) and all(task.doc_md for task in dag.tasks),
        "params": sorted(dag.params),
        "retries": {task.retries for task in dag.tasks} == {3},
        "limited": all(task.execution_timeout for task in dag.tasks) and bool(dag.dagrun_timeout),
        "told": all(task.on_failure_callback for task in dag.tasks),
    } for dag in bag.dags.values()},
}))
"""
FAILS = """
from airflow.sdk import DAG
from headrace_environments import Environment
from headrace_tasks import PATIENCE, program
with DAG("fails", default_args={**PATIENCE, "retries": 0}):
    program("only", Environment("EMPTY_VENV", "EMPTY_IMAGE", "1", "1Gi"), "nothing", "Cannot succeed.")
"""


def airflow(home: Path, folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "false", "AIRFLOW__CORE__DAGS_FOLDER": str(folder)}
    env = {**os.environ, **own, **settings}
    return subprocess.run([PYTHON, *arguments], env=env, cwd=home, capture_output=True, text=True, timeout=280, check=False)


def test_airflow_reads_the_dags(tmp_path: Path) -> None:
    schedules = {"CURATION_SCHEDULE": "*/10 * * * *", "MAINTENANCE_SCHEDULE": "23 3 * * *", "QUALITY_REPORT_SCHEDULE": "0 6 * * *"}
    done = airflow(tmp_path, ROOT / "dags", "-c", READ, str(ROOT / "dags"), **schedules)
    assert done.returncode == 0, done.stderr[-3000:]
    alike = {"runs": 1, "catchup": False, "documented": True, "retries": True, "limited": True, "told": True}
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "errors": {},
        "heavy": [],
        "dags": {
            "backfill": {
                "tasks": {"silver": ["gold"], "gold": []},
                "schedule": None,
                "begins": "None",
                "params": ["from", "to"],
                **alike,
            },
            "curate": {
                "tasks": {"silver": ["gold"], "gold": []},
                "schedule": "*/10 * * * *",
                "begins": "2026-01-01",
                "params": ["full_refresh"],
                **alike,
            },
            "maintain": {
                "tasks": {"compact": ["expire"], "expire": ["sweep"], "sweep": ["analyze"], "analyze": []},
                "schedule": "23 3 * * *",
                "begins": "None",  # else a new platform would run it at once
                "params": ["history"],
                **alike,
            },
            "train": {
                "tasks": {
                    "prepare": ["units_large", "units_small"],
                    **{f"units_{size}": [f"{size}.judge", f"{size}.register", f"{size}.train"] for size in ("small", "large")},
                    **{
                        f"{size}.{step}": after
                        for size in ("small", "large")
                        for step, after in {"train": [f"{size}.judge"], "judge": [f"{size}.register"], "register": []}.items()
                    },
                },
                "schedule": None,
                "begins": "None",
                "params": ["run", "scenario", "trials", "until"],
                **alike,
            },
            "score": {
                "tasks": {"score": []},
                "schedule": None,
                "begins": "None",
                "params": ["scenario", "since"],
                **alike,
            },
            "watch": {
                "tasks": {"watch": ["broken", "tell"], "broken": ["renew"], "renew": ["tell"], "tell": []},
                "schedule": None,
                "begins": "None",
                "params": ["scenario", "until"],
                **alike,
            },
            "quality_report": {
                "tasks": {"report": []},
                "schedule": "0 6 * * *",
                "begins": "None",
                "params": [],
                **alike,
            },
        },
    }


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a web hook, and what came to it."""
    came: list[dict[str, Any]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", came
        server.shutdown()


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home of Airflow with a database, and a folder with a DAG that fails."""
    home, folder = tmp_path_factory.mktemp("airflow"), tmp_path_factory.mktemp("dags")
    (folder / "fails.py").write_text(FAILS)
    for name in ("headrace_tasks.py", "headrace_environments.py"):
        (folder / name).write_text((ROOT / "dags" / name).read_text())
    migrated = airflow(home, folder, "-m", "airflow", "db", "migrate")
    assert migrated.returncode == 0, migrated.stderr[-3000:]
    return home, folder


def test_a_failure_is_told_to_the_web_hook(failing: tuple[Path, Path]) -> None:
    with receiver() as (url, came):
        airflow(*failing, "-m", "airflow", "dags", "test", "fails", EMPTY_VENV="/nonexistent", ALERT_WEBHOOK_URL=url)
    [told] = came
    assert (told["dag"], told["task"], told["attempt"]) == ("fails", "only", 1)
    assert told["text"].startswith(f"fails.only failed for good in {told['run']} after 1 attempts: Bash command failed.")
    assert told["log"] in told["text"]


def test_a_web_hook_that_is_away_is_said_in_the_log(failing: tuple[Path, Path]) -> None:
    with receiver() as (url, _):
        pass
    done = airflow(*failing, "-m", "airflow", "dags", "test", "fails", EMPTY_VENV="/nonexistent", ALERT_WEBHOOK_URL=url)
    assert "there is no environment for this task here (EMPTY_VENV=/nonexistent): make up PROFILE=full makes it" in done.stdout
    assert "nobody was told of this failure: ALERT_WEBHOOK_URL: " in done.stdout
    assert "Bash command failed" in done.stdout


def test_days_of_a_backfill_are_checked_before_it_runs(failing: tuple[Path, Path]) -> None:
    home, _ = failing
    conf = json.dumps({"from": "2026-11-01; rm -rf /", "to": "2026-11-02"})
    done = airflow(home, ROOT / "dags", "-m", "airflow", "dags", "test", "backfill", "--conf", conf)
    assert done.returncode != 0
    assert "ParamValidationError" in done.stderr + done.stdout


RECORDER = """#!/bin/sh
echo "$*" >> "$RECORD"
case "$*" in
  *prepare*) echo '{"small": ["EWR-UA", "LGA-DL"], "large": []}' ;;
  *judge*LGA-DL*) exit 99 ;;
esac
"""


def test_each_unit_of_a_scenario_has_a_chain_of_its_own(failing: tuple[Path, Path], tmp_path: Path) -> None:
    home, _ = failing
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(RECORDER)
    (tmp_path / "bin/python").chmod(0o755)
    settings = {"MODELS_VENV": str(tmp_path), "RECORD": str(tmp_path / "record"), "ALERT_WEBHOOK_URL": ""}
    conf = json.dumps({"scenario": "flights", "run": "again", "trials": 3})
    airflow(
        home, ROOT / "dags", "-m", "airflow", "dags", "test", "train", "--conf", conf, AIRFLOW__CORE__DEFAULT_TASK_RETRIES="0", **settings
    )
    asked = (tmp_path / "record").read_text().splitlines()
    assert asked[0] == "-m ml prepare --scenario flights --run again --trials 3"
    of_unit = {unit: [line for line in asked if line.endswith(f"--run again --unit {unit}")] for unit in ("EWR-UA", "LGA-DL")}
    assert [line.split()[2] for line in of_unit["EWR-UA"]] == ["train", "judge", "register"]  # whatever becomes of the other
    assert {line.split()[2] for line in of_unit["LGA-DL"]} == {"train", "judge"}
    assert len(asked) == 1 + sum(len(lines) for lines in of_unit.values())


WATCHER = """#!/bin/sh
echo "$*" >> "$RECORD"
echo "ml watch: a line for people" >&2
echo "{\\"model\\": \\"repurchase\\", \\"version\\": 2, \\"broken\\": [$BROKEN]}"
"""


@pytest.mark.parametrize("broken", ["", '"AUC 0.4500 is not > 0.6900"'])
def test_a_broken_bound_trains_anew_and_is_told(failing: tuple[Path, Path], tmp_path: Path, broken: str) -> None:
    home, _ = failing

    def trainings() -> int:
        with closing(sqlite3.connect(home / "airflow.db")) as database:
            [(count,)] = database.execute("SELECT count(*) FROM dag_run WHERE dag_id = 'train'").fetchall()
        return int(count)

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(WATCHER)
    (tmp_path / "bin/python").chmod(0o755)
    with receiver() as (url, came):
        settings = {"MODELS_VENV": str(tmp_path), "RECORD": str(tmp_path / "record"), "ALERT_WEBHOOK_URL": url, "BROKEN": broken}
        # `train` has to be known to Airflow's database, as it is where its processor of DAGs runs
        reserialized = airflow(home, ROOT / "dags", "-m", "airflow", "dags", "reserialize", **settings)
        assert reserialized.returncode == 0, reserialized.stderr[-3000:]
        before = trainings()
        done = airflow(home, ROOT / "dags", "-m", "airflow", "dags", "test", "watch", **settings)
    assert (tmp_path / "record").read_text() == "-m ml watch --scenario repurchase\n"
    if broken:
        assert [(told["dag"], told["task"]) for told in came] == [("watch", "tell")]
        assert "repurchase 2: AUC 0.4500 is not > 0.6900" in came[0]["text"]
    else:
        assert came == []
    assert trainings() - before == (1 if broken else 0), done.stdout[-2000:] + done.stderr[-2000:]


def test_the_report_is_a_file_and_in_the_log(tmp_path: Path) -> None:
    env = {**os.environ, "STATE_DIR": str(tmp_path)}
    command = [str(ROOT / ".runtime/venvs/dbt/bin/python"), "-m", "dags.report.main"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = (tmp_path / "data/reports").iterdir()
    text = path.read_text()
    assert text in done.stdout
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## {part.title}" for part in PARTS]
    assert "Could not be asked" not in text.partition("## Dead letters")[2].partition("## ")[0]
