"""The DAG `maintain`: what keeps the lake fast and small."""

import os
from datetime import timedelta

from airflow.sdk import DAG, Param, chain
from headrace_tasks import DBT, PATIENCE, program

DOC = """
### What keeps the lake fast and small
Every commit of a loader or a curation leaves a few files and a snapshot. For every table of bronze, silver and gold, by Trino:
1. **compact** writes small files together (`optimize`).
2. **expire** forgets history older than `MAINTENANCE_HISTORY` (or **history** of this run), and deletes the files that only it needed.
3. **sweep** deletes files that no table names (of writers that were killed) and that are older than a day.
4. **analyze** computes the statistics by which Trino plans queries.

The log of each task shows for every table the data files, bytes, snapshots and the seconds of a query before and after. A table that is
written in the same moment keeps what was written, and is left for the next run. Each task is safe to be killed and run again.
"""

with DAG(
    dag_id="maintain",
    description="Compaction, expiry of snapshots, removal of orphans, statistics",
    doc_md=DOC,
    schedule=os.environ.get("MAINTENANCE_SCHEDULE") or None,
    catchup=False,  # and no start_date: it would run at once on a new platform, for the night before
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=4),
    default_args={**PATIENCE, "execution_timeout": timedelta(hours=1)},
    params={
        "history": Param(
            os.environ.get("MAINTENANCE_HISTORY", "24h"),
            type="string",
            pattern="^[1-9][0-9]{0,5}[hd]$",
            description="How much history of the tables to keep, such as 24h or 7d",
        )
    },
    tags=["lake"],
) as dag:
    works = [
        program(work, DBT, f"python -m dags.upkeep.main {work}", doc, {"MAINTENANCE_HISTORY": "{{ params.history }}"})
        for work, doc in {
            "compact": "Write small files together.",
            "expire": "Forget old snapshots, and delete what only they needed.",
            "sweep": "Delete files that no table names.",
            "analyze": "Statistics for Trino's planner.",
        }.items()
    ]
    chain(*works)
