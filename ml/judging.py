"""The third step: the gate's verdict on a unit's model, beside the baseline and the champion, on the same held-out rows."""

import json
from typing import Any

import msgspec
import numpy as np

from ml.errors import NotEqual
from ml.export import Scorer
from ml.gate import Check, Report, Verdict, judge
from ml.keeping import Run, read_json, step, write_json
from ml.measure import Histogram, drift
from ml.registry import Registry, Version
from ml.rows import Rows
from ml.scenario import SCORE, model_name
from ml.train import encode, report


def judge_unit(run: Run, unit: str, registry: Registry) -> dict[str, Any]:
    """Judge and keep the verdict. Raises NotKept, RegistryError."""
    scenario, folder = run.scenario(), run.unit(unit)
    with step(folder, "judge", [folder / "model.onnx", folder / "metrics.json", folder / "references.json", run.prepared]) as figures:
        reports = msgspec.convert(read_json(folder / "metrics.json"), dict[str, Report])
        candidate = reports.pop("model")
        rows = Rows.read(run, unit)
        champion = registry.champion(model_name(scenario.name, unit))
        unfair: list[Check] = []
        if champion is not None:
            try:
                reports["champion"] = report(rows, Scorer.of(registry.onnx(champion), rows.x.shape[1])(rows.x))
                unfair = _not_comparable(champion, rows)
            except NotEqual:  # it was made of other features: the baseline alone is comparable
                figures["champion"] = f"version {champion.number} takes other features, so it was not compared"
        verdict = judge(candidate, reports, _drifts(run, unit, rows), scenario.bounds)
        verdict = Verdict([*verdict.checks, *unfair])
        kept = {
            "passed": verdict.passed,
            "reasons": verdict.reasons,
            "checks": [str(check) for check in verdict.checks],
            "champion": champion.number if champion else None,
            "reports": json.loads(encode({"model": candidate, **reports})),
        }
        write_json(folder / "verdict.json", kept)
        figures |= {"passed": verdict.passed, "reasons": verdict.reasons, "against": sorted(reports)}
    return figures


def _not_comparable(champion: Version, rows: Rows) -> list[Check]:
    """A champion that has learnt from the held-out time knows its answers: then nothing can be said, and nothing passes."""
    until = champion.tags.get("learnt_until", "")
    begins = str(rows.as_of[rows.masks.judge].min())
    overlap = float(until >= begins) if until else float("nan")
    return [Check("share of the held-out time that the champion has learnt from", overlap, "<=", 0.0)]


def _drifts(run: Run, unit: str, rows: Rows) -> dict[str, float]:
    """From the time learnt from to the held-out time: of what should be stable."""
    scenario, folder = run.scenario(), run.unit(unit)
    learnt = msgspec.convert(read_json(folder / "references.json"), dict[str, dict[str, Histogram]])["learnt"]
    held = rows.masks.judge
    columns = {name: rows.column(name)[held].astype(np.float64) for name in scenario.bounds.stable if name != SCORE}
    if SCORE in scenario.bounds.stable:
        columns[SCORE] = Scorer((folder / "model.onnx").read_bytes())(rows.x[held]).astype(np.float64)
    return drift(learnt, columns)
