"""The second step: for one unit, choose parameters, fit, export, and measure on the held-out time beside the baseline."""

import json
import pickle
import time
from typing import Any

import numpy as np

from ml.contract import AS_OF, Learner
from ml.export import Scorer, export
from ml.gate import Report
from ml.keeping import Run, step, threads, write_json
from ml.measure import by_segment, fit, histogram, ranking
from ml.rows import Rows
from ml.scenario import Scenario, load
from ml.sizes import SIZES
from ml.trials import Given, Trials, trials


def train(run: Run, unit: str, ray: str = "") -> dict[str, Any]:
    """Train the unit and keep the model, its parameters, its predictions and its figures. Raises what `ml/errors.py` has.

    `ray`: the address of the cluster that runs the trials; empty: they run here.
    """
    scenario, folder = run.scenario(), run.unit(unit)
    cpus = SIZES[scenario.resources.of(unit)].cpus
    threads(cpus)
    folder.mkdir(parents=True, exist_ok=True)
    learner: Learner = load(scenario.model, "model")
    with step(folder, "train", [run.prepared, run.folder / "scenario.yaml"]) as figures:
        rows = Rows.read(run, unit)
        with trials(Given.of(scenario.model, scenario.seed, cpus, rows), ray) as where:
            parameters, tried = tune(scenario, learner, where)
        estimator = learner.build(parameters, scenario.seed).fit(rows.x[rows.masks.fit], rows.y[rows.masks.fit])
        onnx, differs = export(estimator, rows.x)
        judged = rows.masks.judge
        scores = Scorer(onnx)(rows.x)
        by_baseline = baseline(scenario, rows)
        reports = {"model": report(rows, scores), "baseline": report(rows, by_baseline)}
        (folder / "model.onnx").write_bytes(onnx)
        (folder / "estimator.pickle").write_bytes(pickle.dumps(estimator))
        held = rows.key[judged].assign(**{AS_OF: rows.as_of[judged], "truth": rows.y[judged], "segment": rows.segment[judged]})
        held.assign(score=scores[judged], baseline=by_baseline[judged]).to_parquet(folder / "held_out.parquet", index=False)
        write_json(folder / "parameters.json", parameters)
        write_json(folder / "metrics.json", json.loads(encode(reports)))
        write_json(folder / "references.json", json.loads(encode(_references(rows, scores))))
        figures |= {
            "rows": {name: int(mask.sum()) for name, mask in rows.masks._asdict().items()},
            "learnt_until": str(rows.as_of[rows.masks.fit].max()),
            "judged_from": str(rows.as_of[judged].min()),
            "judged_until": str(rows.as_of[judged].max()),
            "parameters": parameters,
            "trials": tried,
            "machines": len(where.machines),
            "onnx_differs": differs,
            "auc": round(reports["model"].overall.auc, 4),
            "baseline_auc": round(reports["baseline"].overall.auc, 4),
            "log_loss": round(reports["model"].overall.log_loss, 4),
            "baseline_log_loss": round(reports["baseline"].overall.log_loss, 4),
        }
    return figures


def tune(scenario: Scenario, learner: Learner, where: Trials) -> tuple[dict[str, Any], int]:
    """The parameters with the least log loss on the time before the held-out one, and how many were tried.

    As many as run at a time are asked for together and told in the order of asking: what is found depends on how many machines there are,
    and not on which of them is faster.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=scenario.seed, constant_liar=where.at_once() > 1))
    until = time.monotonic() + scenario.tuning.seconds
    while (left := scenario.tuning.trials - len(study.trials)) > 0 and time.monotonic() < until:
        asked = [study.ask() for _ in range(min(where.at_once(), left))]
        for trial, loss in zip(asked, where.losses([learner.space(each) for each in asked]), strict=True):
            study.tell(trial, loss)
    return learner.space(optuna.trial.FixedTrial(study.best_params)), len(study.trials)


def baseline(scenario: Scenario, rows: Rows) -> Any:
    """What a logistic regression on a few columns says of every row; unknown values are the median of those learnt from."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    few = np.column_stack([rows.column(name) for name in scenario.baseline.columns]).astype(np.float64)
    few = np.sign(few) * np.log1p(np.abs(few))  # counts and durations are long-tailed
    simple = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), LogisticRegression(max_iter=1000))
    return simple.fit(few[rows.masks.fit], rows.y[rows.masks.fit]).predict_proba(few)[:, 1]


def report(rows: Rows, scores: Any) -> Report:
    """The figures of scores of all rows, on the held-out ones."""
    held = rows.masks.judge
    truth, of = rows.y[held], np.asarray(scores, np.float64)[held]
    ranked = None if rows.lists is None else ranking(truth, of, rows.lists.wanted[held], rows.lists.number[held])
    return Report(fit(truth, of), by_segment(truth, of, [str(name) for name in rows.segment[held]]), ranked)


def encode(value: Any) -> bytes:
    """As JSON."""
    import msgspec

    return msgspec.json.encode(value)


def _references(rows: Rows, scores: Any) -> dict[str, Any]:
    """Histograms of each feature and of the score: of the time learnt from (for the gate), and of the held-out time (for scoring)."""
    found = {}
    for name, mask in (("learnt", rows.masks.fit), ("judged", rows.masks.judge)):
        of = {column: histogram(rows.column(column)[mask].astype(np.float64)) for column in rows.columns}
        found[name] = of | {"score": histogram(np.asarray(scores, np.float64)[mask])}
    return found
