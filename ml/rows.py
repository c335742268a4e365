"""The prepared rows of a unit, split by time."""

from typing import NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ml.contract import AS_OF, LABEL, WANTED, FeatureSet
from ml.errors import BadData
from ml.keeping import Run
from ml.scenario import Scenario, load, moment


class Masks(NamedTuple):
    """Which rows are for what; a row may be in none. `learn` and `tune` choose the parameters, `fit` makes the model, `judge` judges it."""

    learn: NDArray[np.bool_]
    tune: NDArray[np.bool_]
    fit: NDArray[np.bool_]
    judge: NDArray[np.bool_]


class Lists(NamedTuple):
    """Where rows are candidates: the number of each row's list, and how many things were wanted of that list in all."""

    number: NDArray[np.int64]
    wanted: NDArray[np.float64]


class Rows(NamedTuple):
    """`x` as the exported model takes it (float32, NaN where unknown)."""

    columns: tuple[str, ...]
    key: pd.DataFrame
    as_of: NDArray[np.datetime64]
    x: NDArray[np.float32]
    y: NDArray[np.float64]
    segment: NDArray[np.str_]
    masks: Masks
    lists: Lists | None = None

    def column(self, name: str) -> NDArray[np.float32]:
        """A feature of all rows."""
        return self.x[:, self.columns.index(name)]

    @classmethod
    def read(cls, run: Run, unit: str) -> Self:
        """The rows of a unit, in a fixed order. Raises NotKept, BadScenario, BadData where one part has not both outcomes."""
        scenario = run.scenario()
        of: FeatureSet = load(scenario.features, "features")
        per, values = (scenario.set.per if scenario.set else []), run.units()[unit]
        wanted = [ds.field(name).cast("string") == value for name, value in zip(per, values, strict=True)]
        condition = None
        for each in wanted:
            condition = each if condition is None else condition & each
        rank_by = [*getattr(of, "rank_by", ())]
        names = list(dict.fromkeys([*of.key, AS_OF, LABEL, of.segment, *of.columns, *rank_by, *([WANTED] if rank_by else [])]))
        frame = ds.dataset(run.prepared).to_table(columns=names, filter=condition).to_pandas()
        frame = frame.sort_values([AS_OF, *of.key], kind="stable").reset_index(drop=True)
        as_of = pd.to_datetime(frame[AS_OF], utc=True).dt.tz_convert(None).to_numpy("datetime64[us]")
        rows = cls(
            columns=of.columns,
            key=frame[[*of.key]],
            as_of=as_of,
            x=frame[[*of.columns]].to_numpy(np.float32),
            y=frame[LABEL].to_numpy(np.float64),
            segment=frame[of.segment].to_numpy(str),
            masks=split(scenario, as_of),
            lists=Lists(frame.groupby([*rank_by, AS_OF]).ngroup().to_numpy(np.int64), frame[WANTED].to_numpy(np.float64))
            if rank_by
            else None,
        )
        for name, mask in rows.masks._asdict().items():
            if len(np.unique(rows.y[mask])) < 2:
                raise BadData(f"{scenario.name}, {unit}: {mask.sum()} rows to {name} and not of both outcomes: change `split` or `set`")
        return rows


def split(of: Scenario, as_of: NDArray[np.datetime64]) -> Masks:
    """By time: a row is learnt from only if its label was known when what comes next begins."""
    tune, test, end = (
        np.datetime64(moment(day).replace(tzinfo=None), "us") for day in (of.split.tune_from, of.split.test_from, of.split.test_until)
    )
    young = as_of >= np.datetime64(of.split.learn_from or "0001-01-01", "us")
    known = as_of + np.timedelta64(int(of.horizon.total_seconds() * 1e6), "us")
    return Masks(
        learn=young & (known <= tune),
        tune=(as_of >= tune) & (known <= test),
        fit=young & (known <= test),
        judge=(as_of >= test) & (as_of < end),
    )
