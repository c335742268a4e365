"""The DAG as the real Airflow reads it, in Airflow's own environment."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
dag = bag.dags.get("curate")
print(json.dumps({
    "errors": bag.import_errors,
    "dags": list(bag.dags),
    "tasks": dag and {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks},
    "runs": dag and dag.max_active_runs,
    "catchup": dag and dag.catchup,
    "schedule": dag and dag.schedule,
    "doc": bool(dag and dag.doc_md),
    "retries": dag and [task.retries for task in dag.tasks],
    "limits": dag and [task.execution_timeout.total_seconds() for task in dag.tasks],
    "heavy": sorted({"pyspark", "dbt", "pandas"} & set(sys.modules)),
}))
"""


def test_airflow_reads_the_dag(tmp_path: Path) -> None:
    own = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "false", "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags")}
    command = [str(ROOT / ".runtime/venvs/airflow/bin/python"), "-c", READ, str(ROOT / "dags")]
    env = {**os.environ, **own, "CURATION_SCHEDULE": "*/10 * * * *"}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "errors": {},
        "dags": ["curate"],
        "tasks": {"silver": ["gold"], "gold": []},
        "runs": 1,
        "catchup": False,
        "schedule": "*/10 * * * *",
        "doc": True,
        "retries": [3, 3],
        "limits": [1800.0, 1800.0],
        "heavy": [],
    }
