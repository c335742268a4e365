"""What gold takes for a prediction and for its truth is what the tracking plan and the model say."""

from pathlib import Path

import yaml

from headrace.features import HORIZON_DAYS, MODEL

ROOT = Path(__file__).parents[2]
VARS = yaml.safe_load((ROOT / "dags/models/dbt_project.yml").read_text())["vars"]


def test_every_type_that_is_scored_has_its_predictions_in_gold() -> None:
    events = yaml.safe_load((ROOT / "schemas/tracking_plan.yaml").read_text())["events"]
    assert VARS["scored"] == [type for type, of in events.items() if of.get("enrich")]


def test_truth_is_waited_for_as_long_as_the_model_looks_ahead() -> None:
    assert VARS["bought_again_within"] == {MODEL: HORIZON_DAYS}
