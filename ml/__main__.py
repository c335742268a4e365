"""`python -m ml STEP`: one step of a model's life, in the environment `ml`. The last line it prints is JSON.

    prepare --scenario NAME|FILE --run FOLDER      features and labels, checked for leaks; the units by size
                                                   [--trials N] [--until DAY|newest]
    train --run FOLDER --unit NAME                 tune, fit, export, measure on held-out time
    judge --run FOLDER --unit NAME                 the gate's verdict, beside the baseline and the champion
    register --run FOLDER --unit NAME              into MLflow, with card and verdict
    make --scenario NAME|FILE --run FOLDER         all four, for every unit, here
    score --scenario NAME|FILE --run FOLDER        what the champions have not scored yet [--since DAY]
    watch --scenario NAME|FILE                     the champion's predictions beside what came true [--until DAY] [--rows FILE]
    stream                                         what stands in a topic of Kafka, until SIGTERM (settings SCORING_STREAM_…)

A folder that is only a name is one in ML_RUNS_DIR.
"""

import argparse
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any, Literal

from headrace.settings import use_env_file
from ml import engines
from ml.errors import Mendable
from ml.keeping import Run, shown
from ml.scenario import Scenario, named
from ml.settings import Settings, StreamSettings

_NEEDS = {
    "prepare": ("scenario",),
    "train": ("unit",),
    "judge": ("unit",),
    "register": ("unit",),
    "make": ("scenario",),
    "score": ("scenario",),
    "watch": ("scenario",),
    "stream": (),
}


def main() -> None:
    """Run one step. What a person can mend is one line on stderr, and status 1."""
    given = _arguments()
    use_env_file()
    engines.known(os.environ)
    if given.step == "stream":
        return _stream()
    settings = Settings.load()
    try:
        if given.step == "watch":
            from ml.watching import watch

            _say(watch(Scenario.read(named(given.scenario)), os.environ, settings.mlflow_url, until=given.until, rows=given.rows))
            return
        run = Run(given.run if given.run.parent != Path() else settings.runs_dir / given.run)
        if given.step == "make":
            _say(_prepare(given, run, settings))
            for unit in run.units():
                for step in ("train", "judge", "register"):
                    _say({"step": step, "unit": unit, **_of_unit(step, run, unit, settings)})
        elif given.step == "prepare":
            _say(_prepare(given, run, settings))
            _say(_by_size(run))
        elif given.step == "score":
            from ml.scoring import score

            _say(
                score(
                    Scenario.read(named(given.scenario)), run, os.environ, url=settings.mlflow_url, since=given.since, cores=settings.cores
                )
            )
        else:
            _say({"step": given.step, "unit": given.unit, **_of_unit(given.step, run, given.unit, settings)})
    except Mendable as problem:
        sys.exit(f"ml {given.step}: {problem}")


def _stream() -> None:
    from ml.streaming import stream

    try:
        stream(StreamSettings.load(), os.environ, _say)
    except Mendable as problem:
        sys.exit(f"ml stream: {problem}")


def _prepare(given: argparse.Namespace, run: Run, settings: Settings) -> dict[str, Any]:
    from ml.prepare import prepare

    scenario = Scenario.read(named(given.scenario))
    return prepare(scenario.trying(given.trials) if given.trials else scenario, run, os.environ, settings.cores, given.until)


def _of_unit(step: str, run: Run, unit: str, settings: Settings) -> dict[str, Any]:
    match step:
        case "train":
            from ml.train import train

            return train(run, unit, settings.ray_address)
        case "judge":
            from ml.judging import judge_unit
            from ml.registry import Registry

            with Registry(settings.mlflow_url) as registry:
                return judge_unit(run, unit, registry)
        case _:
            from ml.tracking import register

            return register(run, unit, settings.mlflow_url)


def _by_size(run: Run) -> dict[str, list[str]]:
    """The units of each size, which Airflow makes tasks of."""
    from ml.sizes import SIZES

    scenario = run.scenario()
    return {size: [unit for unit in run.units() if scenario.resources.of(unit) == size] for size in SIZES}


def _say(figures: dict[str, Any]) -> None:
    print(shown(figures), flush=True)


def _day_or_newest(text: str) -> date | Literal["newest"]:
    return "newest" if text == "newest" else date.fromisoformat(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ml", description="One step of a model's life.")
    steps = parser.add_subparsers(dest="step", required=True)
    for name, needs in _NEEDS.items():
        step = steps.add_parser(name)
        if name not in ("watch", "stream"):
            step.add_argument("--run", type=Path, required=True, help="the folder of the run")
        for need in needs:
            step.add_argument(f"--{need}", required=True)
        if name in ("prepare", "make"):
            step.add_argument("--trials", type=int, help="try so many parameters, and not as many as the scenario says")
            step.add_argument("--until", type=_day_or_newest, help="move the split in time, so that the held-out time ends there")
        if name == "watch":
            step.add_argument("--until", type=date.fromisoformat, help="as if it were this day; the day after the newest prediction")
            step.add_argument("--rows", type=Path, help="predictions with their truth from this Parquet file, and not from the lake")
        if name == "score":
            step.add_argument("--since", type=date.fromisoformat, help="the first day to score; the end of the held-out time")
    return parser.parse_args()


if __name__ == "__main__":
    main()
