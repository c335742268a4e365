"""Bronze to silver once more, for days that were curated under an earlier plan: what `python -m dags.curation.main --from … --to …` does.

It writes only what is not there or differs, in the order of an ordinary run (`silver.events` first), so it may be killed and run again:

- An event that was refused and passes now comes into silver, and out of quarantine.
- A typed row whose columns differ from what the plan now makes of the same message is updated: a column that a schema gained later, for
  one. A row that came from another message of the same content stays as it is.
- A typed row that is not there is added.

What is in silver stays there, also where the plan would refuse it now. Watermark and results of expectations are those of ordinary runs.
"""

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.curation import lake, silver
from dags.curation.options import Days
from dags.curation.plan import Table
from dags.curation.run import Run, judged


def curate_again(spark: SparkSession, run: Run, days: Days) -> dict[str, Any]:
    """Curate what was received on `days` again. The counts of what was done."""
    if not spark.catalog.tableExists(f"{lake.BRONZE}.events"):
        return {"read": 0, "inserted": {}, "mended": {}, "released": 0, "newly_refused": 0}
    new = _received(spark.read.option("split-size", run.split_bytes).table(f"{lake.BRONZE}.events"), days)
    rows = judged(run, new)
    counts = silver.counts(rows)
    inserted = {type: number for (verdict, type, _), number in sorted(counts.items()) if verdict == silver.NEW}
    if inserted:
        lake.append_events(rows.where(F.col("verdict") == silver.NEW))
    mended = {}
    for type, table in run.by_type.items():
        of_type = rows.where(F.col("type") == type)
        if counts.get((silver.KNOWN, type, False)) and (
            changed := _mend(silver.typed(of_type.where(F.col("verdict") == silver.KNOWN), table), table)
        ):
            mended[type] = changed
        if type in inserted:
            lake.append(silver.typed(of_type.where(F.col("verdict") == silver.NEW), table), f"{lake.SILVER}.{table.name}")
    refused = rows.where(F.col("verdict") == silver.QUARANTINE).drop("verdict", "unmet")
    there = _received(spark.table(lake.QUARANTINE), days)
    stale = lake.kept(lake.without_those_in(there, refused, (*silver.POSITION, "reason", "detail")).select(*silver.POSITION))
    released = stale.count()
    if released:
        lake.remove(stale, lake.QUARANTINE, silver.POSITION)
    more = lake.kept(lake.without_those_in(refused, _received(spark.table(lake.QUARANTINE), days), silver.POSITION))
    newly_refused = more.count()
    if newly_refused:
        lake.append(more, lake.QUARANTINE)
    return {"read": sum(counts.values()), "inserted": inserted, "mended": mended, "released": released, "newly_refused": newly_refused}


def _received(rows: DataFrame, days: Days) -> DataFrame:
    first, end = (F.lit(moment).cast("timestamp") for moment in days.bounds)
    return rows.where((F.col("received_at") >= first) & (F.col("received_at") < end))


def _mend(wanted: DataFrame, table: Table) -> int:
    """Make the rows of `table` those `wanted` that differ, and add those that are not there. How many these were."""
    name = f"{lake.SILVER}.{table.name}"
    now = wanted.sparkSession.table(name)
    key = (*silver.IDENTITY, *silver.POSITION)
    columns = [column for column in wanted.columns if column not in key]
    then = now.select(*key, F.struct(*columns).alias("_then"))
    changed = wanted.join(then, list(key)).where(~F.struct(*columns).eqNullSafe(F.col("_then"))).drop("_then")
    changed = lake.kept(changed.select(*wanted.columns))
    missing = lake.kept(lake.without_those_in(wanted, now, silver.IDENTITY))
    updated, added = changed.count(), missing.count()
    if updated:
        lake.update(changed, name, key)
    if added:
        lake.append(missing, name)
    return updated + added
