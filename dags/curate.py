"""The DAG `curate`: bronze to silver (Spark), silver to gold (dbt on Trino)."""

import os
from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Param
from headrace_tasks import DBT, DBT_PATHS, PATIENCE, SPARK, program

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

with DAG(
    dag_id="curate",
    description="Bronze to silver (Spark), silver to gold (dbt on Trino)",
    doc_md=DOC,
    schedule=os.environ.get("CURATION_SCHEDULE") or None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    default_args=dict(PATIENCE),
    params={"full_refresh": Param(False, type="boolean", description="Build every gold table anew, after a change of its columns")},
    tags=["lake"],
) as dag:
    silver = program("silver", SPARK, "python -m dags.curation.main", "Bronze to silver, once.")
    gold = program(
        "gold", DBT, 'dbt build {{ "--full-refresh" if params.full_refresh else "" }}', "Silver to gold, and its tests.", DBT_PATHS
    )
    silver >> gold
