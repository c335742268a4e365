"""`python -m ml STEP`: one step of a model's life, in the environment `ml`. The last line it prints is JSON.

    prepare --scenario NAME|FILE --run FOLDER      features and labels, checked for leaks
    train --run FOLDER --unit NAME                 tune, fit, export, measure on held-out time
    make --scenario NAME|FILE --run FOLDER         both, for every unit, here
"""

import argparse
import os
import sys
from pathlib import Path

from headrace.settings import use_env_file
from ml.errors import Mendable
from ml.keeping import Run, shown
from ml.scenario import Scenario, named


def main() -> None:
    """Run one step. What a person can mend is one line on stderr, and status 1."""
    given = _arguments()
    use_env_file()
    run = Run(given.run)
    try:
        match given.step:
            case "prepare":
                _prepare(given.scenario, run)
            case "train":
                _train(run, given.unit)
            case "make":
                _prepare(given.scenario, run)
                for unit in run.units():
                    _train(run, unit)
    except Mendable as problem:
        sys.exit(f"ml {given.step}: {problem}")


def _prepare(scenario: str, run: Run) -> None:
    from ml.prepare import prepare

    print(shown(prepare(Scenario.read(named(scenario)), run, os.environ)), flush=True)


def _train(run: Run, unit: str) -> None:
    from ml.train import train

    print(shown({"unit": unit, **train(run, unit)}), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ml", description="One step of a model's life.")
    steps = parser.add_subparsers(dest="step", required=True)
    for name, needs in {"prepare": ("scenario",), "train": ("unit",), "make": ("scenario",)}.items():
        step = steps.add_parser(name)
        step.add_argument("--run", type=Path, required=True, help="the folder of the run")
        for need in needs:
            step.add_argument(f"--{need}", required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
