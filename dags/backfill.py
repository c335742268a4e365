"""The DAG `backfill`: days that came in already, curated once more."""

from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Param
from headrace_tasks import PATIENCE, SPARK, program

DOC = """
### Days that came in already, curated once more
For when the tracking plan was mended: a schema gained a property, an event type came into the plan late, an expectation was too strict.
Give the days (UTC) on which the events were **received**, both included.
1. **silver** judges bronze's events of these days again (`dags/curation/again.py`): what was refused and passes now leaves quarantine,
   typed rows get the columns that the plan has now, rows that are missing are added. What is in silver stays.
2. **gold** runs the DAG `curate` with `full_refresh`: facts are never updated, so gold is built anew.

It takes the lock of curation, and gold is built by `curate`, of which there is one run at a time. Running it again changes nothing.
"""
DAY = {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}

with DAG(
    dag_id="backfill",
    description="Bronze to silver once more for some days, then gold anew",
    doc_md=DOC,
    schedule=None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    default_args={**PATIENCE, "execution_timeout": timedelta(hours=4)},
    params={
        "from": Param(**DAY, title="From", description="The first day, such as 2026-11-01"),
        "to": Param(**DAY, title="To", description="The last day"),
    },
    tags=["lake"],
) as dag:
    silver = program(
        "silver",
        SPARK,
        'python -m dags.curation.main --from "$FIRST_DAY" --to "$LAST_DAY"',
        "Bronze to silver again, for the days of this run.",
        {"FIRST_DAY": "{{ params['from'] }}", "LAST_DAY": "{{ params['to'] }}"},
    )
    gold = TriggerDagRunOperator(
        task_id="gold",
        doc_md="Gold anew, by a run of the DAG curate.",
        trigger_dag_id="curate",
        conf={"full_refresh": True},
        wait_for_completion=True,
        deferrable=True,
        poke_interval=10,
        allowed_states=["success"],
        failed_states=["failed"],
    )
    silver >> gold
