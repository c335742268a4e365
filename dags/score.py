"""The DAG `score`: what the champions of a scenario have not scored yet."""

import os
from datetime import timedelta

from airflow.sdk import DAG
from headrace_tasks import MODELS, PATIENCE, RUN, SCHEDULED, day, program, scenario

DOC = """
### What has not been scored
**score** (Spark and ONNX) describes the rows that the champion of the registry has not scored yet, and appends their scores to the
scenario's table in the lake (`lake.gold.scores_<scenario>`): once for each version of a model, whatever is killed, and however often it
runs. Where a column that should be stable looks otherwise than what the champion was judged on, it fails and writes nothing.
"""

with DAG(
    dag_id="score",
    description="What the champions have not scored yet (Spark, ONNX)",
    doc_md=DOC,
    schedule=os.environ.get("SCORE_SCHEDULE") or None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    default_args={**PATIENCE, "execution_timeout": timedelta(hours=2)},
    params={
        "scenario": scenario(SCHEDULED),
        "since": day("The first day; empty: the end of the held-out time"),
    },
    tags=["models"],
) as dag:
    score = program(
        "score",
        MODELS,
        'python -m ml score --scenario "$SCENARIO" --run "$RUN" ${SINCE:+--since "$SINCE"}',
        "Features, scores, one commit.",
        {"SCENARIO": "{{ params.scenario }}", "SINCE": "{{ params.since }}", "RUN": RUN},
    )
