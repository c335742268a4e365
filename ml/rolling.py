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

    `means` has for each new column its value and its seconds. One pass in order of time for all of them.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    row, at = "_asked", "_at"
    asks = asked.select(
        *on,
        F.unix_micros(AS_OF).alias(at),
        *(F.lit(None).cast("double").alias(name) for name in means),
        F.struct(*asked.columns).alias(row),
    )
    told = facts.select(
        *on,
        F.unix_micros(KNOWN_AT).alias(at),
        *(value.cast("double").alias(name) for name, (value, _) in means.items()),
        F.lit(None).cast(asks.schema[row].dataType).alias(row),
    )
    by_time = Window.partitionBy(*on).orderBy(at)
    looked = [F.avg(name).over(by_time.rangeBetween(-seconds * 1_000_000, -1)).alias(name) for name, (_, seconds) in means.items()]
    return told.unionByName(asks).select(row, *looked).where(F.col(row).isNotNull()).select(f"{row}.*", *means)
