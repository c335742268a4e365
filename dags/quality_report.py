"""The DAG `quality_report`: what the last day was like."""

import os
from datetime import timedelta

from airflow.sdk import DAG
from headrace_tasks import DBT, PATIENCE, program

DOC = """
### What the last day was like
A report on the 24 hours before: expectations that did not hold, what is in quarantine and why, dead letters by reason, and how fresh each
event type is. It stands in the log of the task, and as Markdown in `STATE_DIR/data/reports/quality-DAY.md`.

It only reads, and fails softly: what cannot be asked is said in the report, and without Trino the task is skipped. The dashboard *Data
quality and dead letters* shows the same over time.
"""

with DAG(
    dag_id="quality_report",
    description="Expectations, quarantine, dead letters and freshness of the last day",
    doc_md=DOC,
    schedule=os.environ.get("QUALITY_REPORT_SCHEDULE") or None,
    catchup=False,  # and no start_date: it would run at once on a new platform, for the night before
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    default_args=dict(PATIENCE),
    tags=["lake"],
) as dag:
    program("report", DBT, "python -m dags.report.main", "Ask Trino, and write the report.")
