"""The DAG `curate`: bronze to silver (Spark), silver to gold (dbt on Trino)."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

ROOT = Path(__file__).resolve().parent.parent

DOC = """
### From what landed to what can be asked
1. **silver** (PySpark, `dags/curation/`): reads what `lake.bronze` gained since the last run, checks it, drops repetitions, and writes
   one typed table for each event type, `silver.events` (one row for each identity), `silver.quarantine` (refused, with the reason) and
   `silver.dead_letters`. Its log ends with one line of JSON: how many events were read, inserted, duplicates, conflicts, quarantined.
2. **gold** (dbt on Trino, `dags/models/`): facts, dimensions, marts and `customer_features` (`docs/gold.md`), and the tests of what
   they hold.

Both are safe to run again, and to be killed: a second run changes nothing, the next run mends what one left half done.
`CURATION_SCHEDULE` in `.env` says how often it runs. After a change of a model's columns trigger it with **full_refresh**.
"""

# Where dbt finds the project and leaves its output; the rest of the environment is the platform's settings.
DBT = {
    "DBT_PROJECT_DIR": str(ROOT / "dags" / "models"),
    "DBT_PROFILES_DIR": str(ROOT / "dags" / "models"),
    "DBT_TARGET_PATH": str(ROOT / os.environ.get("STATE_DIR", ".runtime/state") / "data" / "dbt" / "target"),
    "DBT_LOG_PATH": str(ROOT / os.environ.get("STATE_DIR", ".runtime/state") / "data" / "dbt" / "log"),
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DBT_VERSION_CHECK": "false",
    "DBT_USE_COLORS": "false",
}

with DAG(
    dag_id="curate",
    description="Bronze to silver (Spark), silver to gold (dbt on Trino)",
    doc_md=DOC,
    schedule=os.environ.get("CURATION_SCHEDULE") or None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args={
        "retries": 3,
        "retry_delay": timedelta(seconds=20),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(minutes=30),
        "cwd": str(ROOT),
        "append_env": True,
    },
    params={"full_refresh": Param(False, type="boolean", description="Build every gold table anew, after a change of its columns")},
    tags=["lake"],
) as dag:
    silver = BashOperator(
        task_id="silver",
        doc_md="Bronze to silver, once.",
        bash_command='exec "$SPARK_VENV/bin/python" -m dags.curation.main',
    )
    gold = BashOperator(
        task_id="gold",
        doc_md="Silver to gold, and its tests.",
        bash_command='exec "$DBT_VENV/bin/dbt" build {{ "--full-refresh" if params.full_refresh else "" }}',
        env=DBT,
    )
    silver >> gold
