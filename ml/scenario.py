"""A scenario: what is learnt from what, how it is split, tuned and judged. One YAML file each in `ml/scenarios/`. Pure, but for reading."""

import importlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
import yaml
from msgspec import Meta

from ml.errors import BadScenario

FOLDER = Path(__file__).parent / "scenarios"
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
ImportPath = Annotated[str, Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Share = Annotated[float, Meta(ge=0, le=1)]
Size = Literal["small", "large"]
SCORE = "score"  # what `bounds.stable` calls the model's own answer


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Split(_Part, frozen=True):
    """Rows by their as-of moment (days in UTC). A row is learnt from only if its label was known before what comes next begins.

    `tune_from` to `test_from` chooses the parameters; `test_from` to `test_until` (not included) judges, and is seen by no choice. What is
    older than `learn_from` is not learnt from: after a change of the world it would teach what is no longer so.
    """

    tune_from: date
    test_from: date
    test_until: date
    learn_from: date | None = None


class Baseline(_Part, frozen=True):
    """What a model has to beat: a logistic regression on these columns alone."""

    columns: Annotated[list[str], Meta(min_length=1)]


class Tuning(_Part, frozen=True):
    """How much Optuna may try: an end comes with whichever is reached first."""

    trials: Annotated[int, Meta(ge=1, le=10_000)] = 20
    seconds: Annotated[int, Meta(ge=1)] = 600


class Set(_Part, frozen=True):
    """A model for each combination of these columns that has at least so many rows to learn from and so many to be judged on."""

    per: Annotated[list[str], Meta(min_length=1)]
    least_learnt: Annotated[int, Meta(ge=1)] = 5_000
    least_judged: Annotated[int, Meta(ge=1)] = 1_000
    only: list[str] = []  # names of units, such as EWR-UA; empty: all


class Resources(_Part, frozen=True):
    """How large each unit's task is (`ml/sizes.py`), and those units that need another size."""

    default: Size = "small"
    units: dict[str, Size] = {}

    def of(self, unit: str) -> Size:
        """The size of a unit."""
        return self.units.get(unit, self.default)


class Bounds(_Part, frozen=True):
    """What the gate asks for (`ml/gate.py`). Gains are of AUC; losses are log loss, as a share of the rival's."""

    least_gain: Share = 0.0  # of AUC over each rival: more than that
    most_segment_loss: Share = 0.02  # a segment's log loss may be so much worse than a rival's
    least_segment: Annotated[int, Meta(ge=50)] = 500  # rows: smaller segments are shown and not judged
    most_calibration_error: Share = 0.05
    most_drift: Annotated[float, Meta(gt=0)] = 0.25  # PSI of each of `stable`
    stable: list[str] = []  # features, or `score`, that should look in the held-out time as in the time learnt from


class Watch(_Part, frozen=True):
    """What the champion's predictions have to keep once it is known what came true (`ml/watching.py`), beside its held-out time."""

    days: Annotated[int, Meta(ge=1, le=366)] = 28  # the predictions of so many days are looked at
    least_rows: Annotated[int, Meta(ge=50)] = 300  # fewer say nothing
    most_auc_loss: Share = 0.05  # AUC may be so much lower
    most_log_loss_gain: Annotated[float, Meta(ge=0)] = 0.1  # log loss may be higher by this share of it
    most_drift: Annotated[float, Meta(gt=0)] = 0.25  # PSI of each of `stable`
    stable: list[str] = []  # what should look as on held-out time: numbers of the scored event, or `score`


class Scenario(_Part, frozen=True):
    """A scenario, as its file has it. `data`, `features` and `model` are import paths (`package.module:name`): see `ml/contract.py`."""

    name: Name
    about: str
    data: ImportPath
    features: ImportPath
    model: ImportPath
    table: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$")]  # where scores go, in the catalog `lake`
    horizon_days: Annotated[float, Meta(gt=0)]  # the label of a row is known so long after its as-of moment
    split: Split
    baseline: Baseline
    seed: int = 7
    settings: dict[str, str] = {}  # for `data`, on top of the environment
    set: Set | None = None
    tuning: Tuning = Tuning()
    resources: Resources = Resources()
    bounds: Bounds = Bounds()
    watch: Watch | None = None

    @property
    def horizon(self) -> timedelta:
        """`horizon_days` as a duration."""
        return timedelta(days=self.horizon_days)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The scenario of a file. Raises BadScenario."""
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.yaml")))
            raise BadScenario(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); there are {known}") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """The scenario in `text`; `where` is named in errors. Raises BadScenario."""
        try:
            scenario = msgspec.convert(yaml.safe_load(text), type=cls)
        except yaml.YAMLError as error:
            raise BadScenario(f"{where}: not YAML: {' '.join(str(error).split())}") from None
        except msgspec.ValidationError as error:
            raise BadScenario(f"{where}: {_placed(str(error))}") from None
        if problem := _contradiction(scenario):
            raise BadScenario(f"{where}: {problem}")
        return scenario

    def trying(self, trials: int) -> Self:
        """The same with another budget for tuning. Raises BadScenario where it is none."""
        changed = msgspec.to_builtins(self)
        changed["tuning"]["trials"] = trials
        return self.parse(yaml.safe_dump(changed), f"--trials {trials}")

    def ending(self, day: date) -> Self:
        """The same with its split moved in time, so that `test_until` is `day`. Raises BadScenario."""
        moved, by = msgspec.to_builtins(self), day - self.split.test_until
        moved["split"] = {name: at + by for name, at in msgspec.structs.asdict(self.split).items() if at is not None}
        return self.parse(yaml.safe_dump(moved), f"--until {day}")

    def dump(self) -> str:
        """As YAML."""
        text: str = yaml.safe_dump(msgspec.to_builtins(self), sort_keys=False)
        return text


def named(scenario: str) -> Path:
    """The file of a scenario: a path, or the name of one in `ml/scenarios/`."""
    return Path(scenario) if scenario.endswith((".yaml", ".yml")) else FOLDER / f"{scenario}.yaml"


def load(path: str, what: str) -> Any:
    """The thing at an import path, which the scenario calls `what`. Raises BadScenario where there is none."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise BadScenario(f"{what}: {path}: cannot be imported: {error}") from None
    except AttributeError:
        raise BadScenario(f"{what}: {path}: the module {module} has no {name}") from None


def units(scenario: Scenario, counts: Mapping[Sequence[str], tuple[int, int]]) -> dict[str, tuple[str, ...]]:
    """The models to make: the name of each with its values of `set.per`.

    `counts` has, for each combination of these columns that is in the data, the rows to learn from and those to be judged on. A scenario
    without a set is one unit, with the scenario's name and no values. Raises BadScenario where none is large enough, or one that the
    scenario names is not there.
    """
    if scenario.set is None:
        return {scenario.name: ()}
    found = {unit_name(values): (tuple(values), rows) for values, rows in counts.items()}
    wanted = scenario.set.only or sorted(found)
    if missing := sorted({*wanted, *scenario.resources.units} - set(found)):
        raise BadScenario(f"{scenario.name}: the data have no {', '.join(missing)}; there are {', '.join(sorted(found))}")
    enough = {
        name: values
        for name in wanted
        for values, (learnt, judged) in [found[name]]
        if learnt >= scenario.set.least_learnt and judged >= scenario.set.least_judged
    }
    if not enough:
        raise BadScenario(
            f"{scenario.name}: no combination of {', '.join(scenario.set.per)} has {scenario.set.least_learnt} rows to learn from"
        )
    return enough


def unit_name(values: Sequence[str]) -> str:
    """The name of a unit: its values, with dashes between; what MLflow and folders cannot have in a name becomes an underscore."""
    return "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", str(value)) for value in values)


def model_name(scenario: str, unit: str) -> str:
    """What the registry calls the model of a unit."""
    return scenario if unit == scenario else f"{scenario}-{unit}"


def moment(day: date) -> datetime:
    """The beginning of a day, UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _contradiction(of: Scenario) -> str | None:
    split = of.split
    if not split.tune_from < split.test_from < split.test_until:
        return f"`$.split`: tune_from {split.tune_from} < test_from {split.test_from} < test_until {split.test_until} does not hold"
    if split.learn_from and split.learn_from + of.horizon >= split.tune_from:
        return f"`$.split.learn_from`: no label from {split.learn_from} on is known before tune_from {split.tune_from}"
    if split.tune_from + of.horizon >= split.test_from:
        horizon = f"(horizon {of.horizon_days:g} days)"
        return f"`$.split.tune_from`: no label from {split.tune_from} on is known before test_from {split.test_from} {horizon}"
    if of.set and len(set(of.set.per)) < len(of.set.per):
        return "`$.set.per`: a column is named twice"
    if of.set and of.watch:
        return "`$.watch`: a scenario with a `set` cannot be watched: the enrichment API serves one model of a name"
    if not of.set and of.resources.units:
        return "`$.resources.units`: there are units only where there is a `set`"
    return None


def _placed(message: str) -> str:
    """msgspec's message with the place first: ``Expected `int`, got `str` - at `$.tuning.trials` ``."""
    said, _, place = message.rpartition(" - at ")
    return f"{place}: {said}" if said else message
