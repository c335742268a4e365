"""The DAG `train`: from data to judged models in the registry, one chain of tasks for each model of a scenario."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta

from airflow.sdk import DAG, Param, task, task_group
from headrace_tasks import MODEL_SIZES, MODELS, PATIENCE, RUN, SCHEDULED, program, scenario

DOC = """
### From data to judged models
1. **prepare** (Spark): features as of each moment and the labels, checked for leaks. A *scenario set* becomes a list of units: for
   flights, one for each airport and airline with enough flights.
2. For each unit, with the resources that its scenario gives it: **train** (Optuna, scikit-learn, ONNX), **judge** (the gate: on held-out
   time, against the baseline and the champion) and **register** (MLflow: a model that did not pass is there too, with the reasons).

A task that failed is tried again alone. Each step's inputs and outputs stay in `ML_RUNS_DIR`, in a folder with the name of the run: clear a
task, and it works again from what the step before left. With **run** it works in the folder of an earlier run.

Nothing serves because of this: `headrace models promote` makes a version the champion. (`make up PROFILE=models`.)
"""
_RUN = "{% if params.run %}{{ params.run }}{% else %}" + RUN + "{% endif %}"


@task(doc_md="The units of one size, as `prepare` found them.")
def units(prepared: str, size: str) -> Sequence[str]:
    """One task chain for each."""
    of: Mapping[str, Sequence[str]] = json.loads(prepared)
    return of[size]


with DAG(
    dag_id="train",
    description="Features, models, verdicts: one chain of tasks for each model of a scenario",
    doc_md=DOC,
    schedule=os.environ.get("TRAIN_SCHEDULE") or None,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=8),
    default_args=dict(PATIENCE),
    params={
        "scenario": scenario(SCHEDULED),
        "trials": Param(
            0, type="integer", minimum=0, maximum=10_000, description="Parameters to try for each model; 0: as the scenario says"
        ),
        "until": Param(
            "",
            type="string",
            pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}|newest)?$",
            description="Move the scenario's split, so that its held-out time ends on this day, or with the newest labels",
        ),
        "run": Param("", type="string", pattern=r"^[A-Za-z0-9_.\-]*$", description="Work in the folder of this earlier run"),
    },
    tags=["models"],
) as dag:
    prepare = program(
        "prepare",
        MODELS,
        'python -m ml prepare --scenario "$SCENARIO" --run "$RUN" --trials "$TRIALS" ${UNTIL:+--until "$UNTIL"}',
        "Features and labels of all rows, and the units.",
        {"SCENARIO": "{{ params.scenario }}", "RUN": _RUN, "TRIALS": "{{ params.trials }}", "UNTIL": "{{ params.until }}"},
    )
    for size, environment in MODEL_SIZES.items():

        @task_group(group_id=size)
        def model(unit: str) -> None:
            """One model, from rows to registry."""
            known = {"RUN": _RUN, "UNIT": unit}
            train, judge, register = (
                program(step, environment, f'python -m ml {step} --run "$RUN" --unit "$UNIT"', doc, known)  # noqa: B023 - called below
                for step, doc in (
                    ("train", "Tune, fit, export, and measure on held-out time."),
                    ("judge", "The gate."),
                    ("register", "Into MLflow, with the verdict."),
                )
            )
            train >> judge >> register

        model.expand(unit=units.override(task_id=f"units_{size}")(prepare.output, size))
