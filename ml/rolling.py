"""What was known before a moment: the two ways in which features look back. Both leave out the moment itself."""

from typing import TYPE_CHECKING

from ml.contract import AS_OF, KNOWN_AT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame


def past(asked: "DataFrame", facts: "DataFrame", on: "Sequence[str]") -> "DataFrame":
    """Each row of `asked` with each fact of the same `on` that was known before its `as_of`; rows without any are left out."""
    from pyspark.sql import functions as F

    return asked.join(facts, list(on)).where(F.col(KNOWN_AT) < F.col(AS_OF))


def recent(asked: "DataFrame", facts: "DataFrame", on: "Sequence[str]", means: "Mapping[str, tuple[Column, int]]") -> "DataFrame":
    """`asked` with means over the facts of the same `on`, each of a value over the seconds before `as_of`; null where there are none.

    `means` has for each new column its value and its seconds. One pass in order of time for all of them: what a running sum was at `as_of`,
    less what it was at the beginning of the time, so that a long time costs no more than a short one.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    row, at, edge = "_asked", "_at", "_edge"
    edges = F.array(*(F.lit(seconds) for seconds in sorted({0, *(seconds for _, seconds in means.values())})))
    asks = asked.select(*on, F.struct(*asked.columns).alias(row), F.explode(edges).alias(edge)).select(
        *on,
        *(row, edge),
        (F.unix_micros(F.col(f"{row}.{AS_OF}")) - F.col(edge) * F.lit(1_000_000).cast("long")).alias(at),
        *(F.lit(None).cast("double").alias(name) for name in means),
    )
    told = facts.select(
        *on,
        F.lit(None).cast(asks.schema[row].dataType).alias(row),
        F.lit(None).cast("int").alias(edge),
        F.unix_micros(KNOWN_AT).alias(at),
        *(value.cast("double").alias(name) for name, (value, _) in means.items()),
    )
    before = Window.partitionBy(*on).orderBy(at).rangeBetween(Window.unboundedPreceding, -1)
    sums = [F.coalesce(F.sum(name).over(before), F.lit(0.0)).alias(f"_sum_{name}") for name in means]
    counts = [F.count(name).over(before).alias(f"_count_{name}") for name in means]
    run = told.unionByName(asks).select(row, edge, *sums, *counts).where(F.col(row).isNotNull())

    def between(what: str, seconds: int) -> "Column":
        return F.max(F.when(F.col(edge) == 0, F.col(what))) - F.max(F.when(F.col(edge) == seconds, F.col(what)))

    def mean(name: str, seconds: int) -> "Column":
        number = between(f"_count_{name}", seconds)
        return F.when(number > 0, between(f"_sum_{name}", seconds) / number).alias(name)

    return run.groupBy(row).agg(*(mean(name, seconds) for name, (_, seconds) in means.items())).select(f"{row}.*", *means)
