"""The fourth step: the run, the model and its card into MLflow. A model that did not pass is registered too, with the reasons."""

import hashlib
import os
from typing import Any

from ml.keeping import Run, read_json, step, write_json
from ml.registry import Registry
from ml.scenario import load, model_name

_INPUT = "features"


def register(run: Run, unit: str, url: str) -> dict[str, Any]:
    """Register the unit's model as a new version, and keep which one it is. Raises NotKept, RegistryError.

    Done again, it makes another version: the same run of training may be registered more than once.
    """
    folder = run.unit(unit)
    with step(folder, "register", [folder / "model.onnx", folder / "verdict.json"]) as figures:
        onnx = (folder / "model.onnx").read_bytes()
        card = _card(run, unit, onnx)
        write_json(folder / "card.json", card)
        (folder / "card.md").write_text(card_text(card))
        with Registry(url) as registry:
            registry.models()  # says in one line where nobody is there; MLflow's client would try for minutes
            number = _log(run, unit, url, card, onnx)
            registry.onnx(registry.version(card["model"], number))  # what can be fetched is what was trained
        figures |= {"model": card["model"], "version": number, "gate": card["gate"], "reasons": card["reasons"]}
    return figures


def _log(run: Run, unit: str, url: str, card: dict[str, Any], onnx: bytes) -> int:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    import mlflow.onnx
    import numpy as np
    import onnx as format
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    folder, name, columns = run.unit(unit), card["model"], len(card["features"])
    given = Schema([TensorSpec(np.dtype(np.float32), (-1, columns), _INPUT)])
    answers = Schema([TensorSpec(np.dtype(np.float32), (-1, 2), "probabilities")])
    mlflow.set_tracking_uri(url)
    mlflow.set_experiment(card["scenario"])
    tags = {
        key: str(card[key])
        for key in ("data_snapshot", "code", "onnx_sha256", "learnt_until", "judged_from", "judged_until", "gate", "run")
    }
    tags |= {f"reason.{n:02d}": reason for n, reason in enumerate(card["reasons"])}
    with mlflow.start_run(run_name=f"{run.name} {unit}", tags={**tags, "unit": unit}):
        mlflow.log_params(card["parameters"])
        mlflow.log_metrics(_metrics(card))
        for file in ("card.md", "card.json", "verdict.json", "train.json", "judge.json"):
            mlflow.log_artifact(str(folder / file))
        logged = mlflow.onnx.log_model(
            format.load_model_from_string(onnx),
            name="model",
            signature=ModelSignature(given, answers),
            extra_files=[str(folder / "card.json"), str(folder / "references.json")],
            save_as_external_data=False,
            pip_requirements=[f"onnxruntime=={card['libraries']['onnxruntime']}", f"numpy=={card['libraries']['numpy']}"],
        )
        client = mlflow.MlflowClient()
        made = mlflow.register_model(logged.model_uri, name, tags=tags)
        client.update_model_version(name, made.version, card_text(card))
    return int(made.version)


def _card(run: Run, unit: str, onnx: bytes) -> dict[str, Any]:
    scenario, folder = run.scenario(), run.unit(unit)
    prepared, trained = read_json(run.folder / "prepare.json"), read_json(folder / "train.json")
    verdict = read_json(folder / "verdict.json")
    values = dict(zip(scenario.set.per, run.units()[unit], strict=True)) if scenario.set else {}
    of = load(scenario.features, "features")
    return {
        "model": model_name(scenario.name, unit),
        "about": scenario.about,
        "scenario": scenario.name,
        "unit": unit,
        "values": values,
        "run": run.name,
        "features": list(of.columns),
        "segment": of.segment,
        "horizon_days": scenario.horizon_days,
        "data_snapshot": prepared["data_snapshot"],
        "code": trained["code"],
        "libraries": trained["libraries"],
        "seed": scenario.seed,
        "parameters": trained["parameters"],
        "trials": trained["trials"],
        "rows": trained["rows"],
        "learnt_until": trained["learnt_until"],
        "judged_from": trained["judged_from"],
        "judged_until": trained["judged_until"],
        "onnx_sha256": hashlib.sha256(onnx).hexdigest(),
        "onnx_differs": trained["onnx_differs"],
        "gate": "passed" if verdict["passed"] else "failed",
        "reasons": verdict["reasons"],
        "checks": verdict["checks"],
        "reports": verdict["reports"],
        "cost": {
            name: {key: record[key] for key in ("seconds", "processor_seconds", "most_memory_mb")}
            for name, record in (("prepare", prepared), ("train", trained))
        },
    }


def card_text(card: dict[str, Any]) -> str:
    """The card for people, as Markdown."""
    lines = [
        f"# {card['model']}",
        card["about"],
        "",
        "| on held-out time | rows | AUC | log loss | calibration error |",
        "|---|---|---|---|---|",
    ]
    for who, report in card["reports"].items():
        for where, fit in {"all": report["overall"], **report["segments"]}.items():
            figures = " | ".join(_number(fit[name]) for name in ("auc", "log_loss", "calibration_error"))
            lines.append(f"| {who}, {where} | {fit['rows']:,} | {figures} |")
    if ranked := {who: report["ranking"] for who, report in card["reports"].items() if report.get("ranking")}:
        lines += ["", "| order of the lists | lists | hit rate at 5 | MRR |", "|---|---|---|---|"]
        lines += [f"| {who} | {of['lists']:,} | {_number(of['hit_rate'])} | {_number(of['mrr'])} |" for who, of in ranked.items()]
    lines += ["", f"Gate: **{card['gate']}**", *(f"- {reason}" for reason in card["reasons"])]
    lines += ["", f"Learnt until {card['learnt_until']}; judged from {card['judged_from']} to {card['judged_until']}."]
    lines += [f"Data: {card['data_snapshot']}. Code: {card['code']}. Features: {', '.join(card['features'])}."]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _metrics(card: dict[str, Any]) -> dict[str, float]:
    found = {f"{step}_{key}": float(value) for step, of in card["cost"].items() for key, value in of.items()}
    for who, report in card["reports"].items():
        told = {**report["overall"], **(report.get("ranking") or {})}
        found |= {f"{who}_{key}": float(value) for key, value in told.items() if value is not None}
    return found
