"""What the tasks of all DAGs have in common: the environment that each runs in, its patience, and who is told when it fails.

A task is a program in an environment of its own, so tasks' dependencies never meet those of Airflow or of one another.
"""

import json
import os
import urllib.request
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import Param
from headrace_environments import DBT, MODEL_SIZES, MODELS, SPARK, Environment, dbt_paths, executor_config

__all__ = [
    "DBT",
    "DBT_PATHS",
    "MODELS",
    "MODEL_SIZES",
    "PATIENCE",
    "ROOT",
    "RUN",
    "SCHEDULED",
    "SPARK",
    "day",
    "program",
    "scenario",
    "tell_of_failure",
]
ROOT = Path(__file__).resolve().parent.parent

# Where dbt finds the project and leaves its output; the rest of the environment is the platform's settings.
_OUTPUT = ROOT / os.environ.get("STATE_DIR", ".runtime/state") / "data" / "dbt"
DBT_PATHS = dbt_paths(ROOT, _OUTPUT / "target", _OUTPUT / "log")
SCHEDULED = os.environ.get("SCHEDULED_SCENARIO") or "churn"
# What a run is called where it is the name of a folder (a template of Airflow).
RUN = "{{ run_id | replace(':', '') | replace('+', '_') }}"


def scenario(default: str, part: str = "") -> Param:
    """The scenario that a run is of: ours and a project's own files beside them, or those of them with such a `part`."""
    files = sorted((ROOT / "ml" / "scenarios").glob("*.yaml"))  # read as text: Airflow's environment has no part of `ml`
    known = [path.stem for path in files if not part or f"\n{part}:" in path.read_text("utf-8")]
    return Param(default, type="string", enum=known, description="ml/scenarios/" + (f", with a part `{part}`" if part else ""))


def day(description: str) -> Param:
    """A day, or none."""
    return Param("", type="string", pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$", description=description)


def tell_of_failure(context: Mapping[str, Any]) -> None:
    """POST what failed to ALERT_WEBHOOK_URL (JSON: `text`, as Slack and its like read it, and the parts), where it is set.

    That a message does not arrive must not hide the failure itself: it is said in the task's log.
    """
    url = os.environ.get("ALERT_WEBHOOK_URL")
    if not url:
        return
    task = context["task_instance"]
    parts = {"dag": task.dag_id, "task": task.task_id, "run": task.run_id, "attempt": task.try_number, "log": task.log_url}
    what = f"{parts['dag']}.{parts['task']} failed for good in {parts['run']} after {parts['attempt']} attempts"
    body = json.dumps({"text": f"{what}: {context.get('exception')} ({parts['log']})", **parts})
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        urllib.request.urlopen(request, timeout=10).close()  # noqa: S310
    except (OSError, ValueError) as error:
        print(f"nobody was told of this failure: ALERT_WEBHOOK_URL: {error}")


PATIENCE: Mapping[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(minutes=30),
    "on_failure_callback": tell_of_failure,
}


def program(
    task_id: str, environment: Environment, command: str, doc: str, env: Mapping[str, str] | None = None, **others: Any
) -> BashOperator:
    """A task that runs `command` of an environment, with `env` beside the settings. `others` are members of BashOperator."""
    return BashOperator(
        task_id=task_id,
        doc_md=doc,
        bash_command=environment.command(command),
        cwd=str(ROOT),
        env=dict(env or {}),
        append_env=True,
        executor_config=executor_config(environment, os.environ),
        **others,
    )
