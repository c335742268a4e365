"""The DAG `watch`: are the champion's predictions still what they were judged to be? Where not, `train` runs, and somebody is told."""

import json
import os
from datetime import timedelta

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, task
from airflow.sdk.exceptions import AirflowFailException
from headrace_tasks import MODELS, PATIENCE, day, program, scenario

DOC = """
### What serves, beside what came true
1. **watch** reads the champion's predictions of the recent time with their truth (`lake.gold.prediction_truth`), compares AUC and log loss
   with those of held-out time, and looks for drift of the scenario's inputs and of the score. What is found goes to
   `lake.gold.model_watch`.
2. Where a bound is broken: **renew** runs the DAG `train` with the scenario, its split moved to the newest labels, and **tell** fails with
   what was broken, so that the run is red and `ALERT_WEBHOOK_URL` is told. Where all is well, both are skipped.

A new model serves nobody by this: the gate decides whether it may, and `headrace models promote` makes it the champion.
"""


@task.short_circuit(doc_md="Whether a bound is broken: where none is, what follows is skipped.")
def broken(said: str) -> bool:
    """Of the last line of `watch`."""
    return bool(json.loads(said)["broken"])


@task(doc_md="Fails, so that a person looks: what was broken is in the message.")
def tell(said: str) -> None:
    """It is not tried again: it would be the same."""
    found = json.loads(said)
    raise AirflowFailException(f"{found['model']} {found['version']}: {'; '.join(found['broken'])}")


with DAG(
    dag_id="watch",
    description="The champion's predictions beside what came true; a broken bound trains anew",
    doc_md=DOC,
    schedule=os.environ.get("WATCH_SCHEDULE") or None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=1),
    default_args=dict(PATIENCE),
    params={
        "scenario": scenario("repurchase", "watch"),
        "until": day("As of this day; empty: the newest prediction's"),
    },
    tags=["models"],
) as dag:
    watch = program(
        "watch",
        MODELS,
        'python -m ml watch --scenario "$SCENARIO" ${UNTIL:+--until "$UNTIL"}',
        "AUC, log loss and drift, and what is broken.",
        {"SCENARIO": "{{ params.scenario }}", "UNTIL": "{{ params.until }}"},
    )
    renew = TriggerDagRunOperator(
        task_id="renew",
        doc_md="The DAG `train`, on the newest labels.",
        trigger_dag_id="train",
        conf={"scenario": "{{ params.scenario }}", "until": "newest"},
    )
    broken(watch.output) >> renew >> tell(watch.output)
