"""Does a feature know the future? Rows are asked for and described once more from what was known at their moment alone: any difference is a
leak."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml.contract import AS_OF, KNOWN_AT, FeatureSet, Tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MOMENTS, ROWS = 5, 200
_TOLERANCE = 1e-6  # relative, and of a unit: sums of floats depend on their order


@dataclass(frozen=True)
class Found:
    """A value that is not the same without the future; `whole` with all the data, `cut` with what was known at `as_of`."""

    column: str
    key: Mapping[str, Any]
    as_of: datetime
    whole: Any
    cut: Any

    def __str__(self) -> str:
        """As a sentence."""
        row = ", ".join(f"{name} {value}" for name, value in self.key.items())
        return f"{self.column} of {row} as of {self.as_of:%Y-%m-%d %H:%M} is {self.whole} and, without the future, {self.cut}"


@dataclass(frozen=True)
class Checked:
    """How much was looked at, and what was found: one example for each column that leaks."""

    moments: int
    rows: int
    leaks: Sequence[Found]


def find(of: FeatureSet, tables: Tables, described: "DataFrame", moments: int = MOMENTS, rows: int = ROWS) -> Checked:
    """Look at up to `rows` rows at each of `moments` as-of moments, which are spread over the middle of the time in `described`.

    `described` is what `of.features` made with all of `tables`. Costs one computation of features for each moment. What leaks only in
    rows that are not among these is not found.
    """
    compared = (*of.columns, of.segment)
    examined, leaks = 0, dict[str, Found]()
    chosen = _spread(described, moments)
    for as_of in chosen:
        looked_at = described.where(_is(as_of)).orderBy(*of.key).limit(rows)
        whole = looked_at.select(*of.key, *compared).collect()
        known = {name: table.where(table[KNOWN_AT] < as_of) for name, table in tables.items()}
        asked = of.asked(known).where(_is(as_of)).join(looked_at.select(*of.key), list(of.key), "left_semi")
        cut = {_key(of, row): row for row in of.features(known, asked).select(*of.key, *compared).collect()}
        examined += len(whole)
        for row in whole:
            other = cut.get(_key(of, row))
            for column in compared:
                value = other[column] if other is not None else None
                if column not in leaks and not _same(row[column], value):
                    key = {name: row[name] for name in of.key}
                    leaks[column] = Found(column, key, as_of, row[column], "no row" if other is None else value)
    return Checked(len(chosen), examined, list(leaks.values()))


def _spread(described: "DataFrame", moments: int) -> list[datetime]:
    """Moments of the middle of the time: at its end there is no future to leak."""
    from pyspark.sql import functions as F

    at = described.select(AS_OF).distinct()
    low, high = at.select(F.unix_micros(AS_OF).alias("t")).approxQuantile("t", [0.2, 0.8], 0.01)
    inside = at.where(F.unix_micros(AS_OF).between(int(low), int(high)))
    of_part = F.ntile(moments).over(_by_time())
    first = inside.withColumn("_part", of_part).groupBy("_part").agg(F.min(AS_OF).alias(AS_OF)).orderBy(AS_OF)
    return [row[AS_OF] for row in first.collect()]


def _by_time() -> Any:
    from pyspark.sql import Window

    return Window.orderBy(AS_OF)


def _is(as_of: datetime) -> Any:
    from pyspark.sql import functions as F

    return F.col(AS_OF) == F.lit(as_of)


def _key(of: FeatureSet, row: Any) -> tuple[Any, ...]:
    return tuple(row[name] for name in of.key)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (math.isnan(one) and math.isnan(other))
    return bool(one == other)
