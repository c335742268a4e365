"""Bronze to silver, once: `python -m dags.curation.main` in Spark's environment. Prints one line of JSON with what it did.

The order makes it safe to be killed anywhere. `silver.events` is written first and decides what each event is; typed tables and the
quarantine follow from it; the watermark comes last. A run that was cut off is repaired by the next, which reads the same rows again, finds
their identities known, and writes the rows that are missing.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.curation import lake, silver
from dags.curation.plan import PlanError, Table, read_plan, tables
from dags.curation.session import Busy, NoLake, alone, close_session, open_session, settings


def curate_events(spark: SparkSession, by_type: Mapping[str, Table]) -> dict[str, Any]:
    """Bring what bronze.events gained into silver. The counts of what was done."""
    gained = lake.new_rows(spark, f"{lake.BRONZE}.events", lake.EVENTS)
    if gained is None:
        return {"read": 0, "inserted": {}, "repaired": {}, "duplicates": 0, "conflicts": 0, "quarantined": 0}
    landed = {row["type"] for row in gained.rows.select("type").distinct().collect()}
    checked = silver.with_problem(silver.with_content_hash(gained.rows), [table for type, table in by_type.items() if type in landed])
    rows = _kept(silver.judged(checked, spark.table(lake.EVENTS)))
    counts = silver.counts(rows)
    by_verdict: Counter[str] = Counter()
    for (verdict, _, _), number in counts.items():
        by_verdict[verdict] += number

    if by_verdict[silver.NEW]:
        columns = ("source", "id", "type", "time", "received_at", "content_hash")
        lake.append(rows.where(F.col("verdict") == silver.NEW).select(*columns), lake.EVENTS)
    repaired = {}
    for type, table in by_type.items():
        name = f"{lake.SILVER}.{table.name}"
        of_type = rows.where(F.col("type") == type)
        if counts.get((silver.KNOWN, type, False)):
            # Most of these are sendings of long ago, repeated; their rows are there.
            known = _kept(lake.without_those_in(of_type.where(F.col("verdict") == silver.KNOWN), name, silver.IDENTITY))
            if missing := known.count():
                lake.append(silver.typed(known, table), name)
                repaired[type] = missing
        if counts.get((silver.NEW, type, False)):
            lake.append(silver.typed(of_type.where(F.col("verdict") == silver.NEW), table), name)
    if by_verdict[silver.QUARANTINE]:
        refused = rows.where(F.col("verdict") == silver.QUARANTINE).drop("verdict")
        refused = _kept(lake.without_those_in(refused, lake.QUARANTINE, silver.POSITION))
        if not refused.isEmpty():
            lake.append(refused, lake.QUARANTINE)
    lake.set_watermark(spark, lake.EVENTS, gained.end)
    conflicts = sum(number for (verdict, _, conflict), number in counts.items() if verdict == silver.QUARANTINE and conflict)
    return {
        "read": sum(counts.values()),
        "inserted": {type: number for (verdict, type, _), number in sorted(counts.items()) if verdict == silver.NEW},
        "repaired": repaired,
        "duplicates": by_verdict[silver.DUPLICATE] + by_verdict[silver.KNOWN] - sum(repaired.values()),
        "conflicts": conflicts,
        "quarantined": by_verdict[silver.QUARANTINE] - conflicts,
    }


def curate_dead_letters(spark: SparkSession) -> dict[str, Any]:
    """Bring what bronze.dead_letters gained into silver, one row for each dead_letter_id. The counts of what was done."""
    gained = lake.new_rows(spark, f"{lake.BRONZE}.dead_letters", lake.DEAD_LETTERS)
    if gained is None:
        return {"dead_letters_read": 0, "dead_letters": 0}
    read = gained.rows.count()
    letters = silver.first_of_each(gained.rows, "dead_letter_id", "kafka_topic", "kafka_partition", "kafka_offset")
    new = _kept(lake.without_those_in(letters, lake.DEAD_LETTERS, ["dead_letter_id"]))
    number = new.count()
    if number:
        lake.append(new, lake.DEAD_LETTERS)
    lake.set_watermark(spark, lake.DEAD_LETTERS, gained.end)
    return {"dead_letters_read": read, "dead_letters": number}


def _kept(rows: DataFrame) -> DataFrame:
    """`rows` as they are now. (`persist` would not do: Spark computes it again once a table that it was read from is written.)"""
    return rows.localCheckpoint(eager=True, storageLevel=StorageLevel.DISK_ONLY)


def main() -> None:
    """Curate once, with the settings of the environment."""
    started = time.monotonic()
    env = settings()
    try:
        by_type = tables(read_plan(Path(env["SCHEMAS_DIR"])))
        spark = open_session(env)
        with alone(spark, env):
            lake.make_fixed_tables(spark)
            lake.make_typed_tables(spark, by_type.values())
            done = curate_events(spark, by_type) | curate_dead_letters(spark)
    except (PlanError, lake.TableMismatch, Busy, NoLake) as error:
        sys.exit(f"curation: {error}")
    print(json.dumps(done | {"seconds": round(time.monotonic() - started, 1)}), flush=True)
    close_session(spark)


if __name__ == "__main__":
    main()
