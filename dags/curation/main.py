"""Bronze to silver, once: `python -m dags.curation.main` in Spark's environment. Prints one line of JSON with what it did.

With `--from DAY --to DAY` it curates what was received on these days (UTC) again instead (again.py).

The order makes it safe to be killed anywhere. `silver.events` is written first and decides what each event is; typed tables and the
quarantine follow from it; the watermark comes last. A run that was cut off is repaired by the next, which reads the same rows again, finds
their identities known, and writes the rows that are missing.
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.curation import lake, quality, silver
from dags.curation.again import curate_again
from dags.curation.expectations import ExpectationsError, properties_of, read_expectations
from dags.curation.options import OptionsError, days_of, options
from dags.curation.parallelism import Input, parallelism
from dags.curation.plan import PlanError, read_marks, read_plan, tables
from dags.curation.privacy import Marks
from dags.curation.quality import Result
from dags.curation.run import Run, judged
from dags.curation.session import Busy, NoLake, NoSpark, alone, catalog_properties, close_session, open_session, start_jvm
from dags.runs import Cost


def curate_events(spark: SparkSession, run: Run) -> tuple[dict[str, Any], list[Result]]:
    """Bring what bronze.events gained into silver. The counts of what was done, and what was found of the expectations."""
    lake.publish_results(spark)  # of a run that was cut off
    by_type = run.by_type
    gained = lake.new_rows(spark, f"{lake.BRONZE}.events", lake.EVENTS, run.split_bytes)
    if gained is None:
        results = quality.of_tables(spark, by_type, run.expected, run.at)
        lake.remember(spark, lake.EVENTS, {lake.RESULTS: _as_json(run, results)})
        lake.publish_results(spark)
        return {"read": 0, "inserted": {}, "repaired": {}, "duplicates": 0, "conflicts": 0, "quarantined": 0, "newly_refused": 0}, results
    rows = judged(run, gained.rows)
    counts = silver.counts(rows)
    by_verdict: Counter[str] = Counter()
    for (verdict, _, _), number in counts.items():
        by_verdict[verdict] += number

    started = lake.unfinished(spark, lake.EVENTS, gained.whole)  # by a run that was cut off; it may have left out typed rows
    if by_verdict[silver.NEW]:
        lake.append_events(rows.where(F.col("verdict") == silver.NEW))
    repaired = {}
    for type, table in by_type.items():
        name = f"{lake.SILVER}.{table.name}"
        of_type = rows.where(F.col("type") == type)
        if started is not None and counts.get((silver.KNOWN, type, False)):
            suspects = _known_among(of_type, started)
            left_out = lake.kept(lake.without_those_in(suspects, lake.unfinished(spark, name, gained.whole), silver.IDENTITY))
            if missing := left_out.count():
                lake.append(silver.typed(left_out, table), name)
                repaired[type] = missing
        if counts.get((silver.NEW, type, False)):
            lake.append(silver.typed(of_type.where(F.col("verdict") == silver.NEW), table), name)
    newly_refused = 0
    if by_verdict[silver.QUARANTINE]:
        refused = rows.where(F.col("verdict") == silver.QUARANTINE).drop("verdict", "unmet")
        refused = lake.kept(lake.without_those_in(refused, lake.unfinished(spark, lake.QUARANTINE, gained.whole), silver.POSITION))
        if newly_refused := refused.count():
            lake.append(refused, lake.QUARANTINE)
    written = [lake.EVENTS, lake.QUARANTINE, *(f"{lake.SILVER}.{table.name}" for table in by_type.values())]
    results = [
        *quality.of_rows(run.expected, silver.unmet(_first_seen(rows, started))),
        *quality.of_tables(spark, by_type, run.expected, run.at),
    ]
    known = {lake.WATERMARK: gained.end, lake.COMPLETED: lake.snapshots(spark, written), lake.RESULTS: _as_json(run, results)}
    lake.remember(spark, lake.EVENTS, known)
    lake.publish_results(spark)
    conflicts = sum(number for (verdict, _, conflict), number in counts.items() if verdict == silver.QUARANTINE and conflict)
    done = {
        "read": sum(counts.values()),
        "inserted": {type: number for (verdict, type, _), number in sorted(counts.items()) if verdict == silver.NEW},
        "repaired": repaired,
        "duplicates": by_verdict[silver.DUPLICATE] + by_verdict[silver.KNOWN] - sum(repaired.values()),
        "conflicts": conflicts,
        "quarantined": by_verdict[silver.QUARANTINE] - conflicts,
        "newly_refused": newly_refused,
    }
    return done, results


def curate_dead_letters(spark: SparkSession, split_bytes: int) -> dict[str, Any]:
    """Bring what bronze.dead_letters gained into silver, one row for each dead_letter_id. The counts of what was done."""
    gained = lake.new_rows(spark, f"{lake.BRONZE}.dead_letters", lake.DEAD_LETTERS, split_bytes)
    if gained is None:
        return {"dead_letters_read": 0, "dead_letters": 0}
    read = gained.rows.count()
    letters = silver.first_of_each(gained.rows, "dead_letter_id", "kafka_topic", "kafka_partition", "kafka_offset")
    new = lake.kept(lake.without_those_in(letters, spark.table(lake.DEAD_LETTERS), ["dead_letter_id"]))
    number = new.count()
    if number:
        lake.append(new, lake.DEAD_LETTERS)
    lake.set_watermark(spark, lake.DEAD_LETTERS, gained.end)
    return {"dead_letters_read": read, "dead_letters": number}


def _first_seen(rows: DataFrame, started: DataFrame | None) -> DataFrame:
    """The rows that this run is the first to account for: the new ones, those that it refuses, and those of a run that was cut off."""
    seen = rows.where((F.col("verdict") == silver.NEW) | (F.col("reason") == "quality"))
    if started is None:
        return seen
    return seen.unionByName(_known_among(rows, started))


def _known_among(rows: DataFrame, started: DataFrame) -> DataFrame:
    """The rows of identities that a run which was cut off had written to silver.events."""
    return rows.where(F.col("verdict") == silver.KNOWN).join(started.select(*silver.IDENTITY), [*silver.IDENTITY], "left_semi")


def _cost(run: Run, job: str, done: Mapping[str, Any], size: Input, seconds: float) -> Cost:
    read = done["read"] + done.get("dead_letters_read", 0)
    by_type = (number for what in ("inserted", "repaired", "mended") for number in done.get(what, {}).values())
    written = sum((*by_type, *(done.get(what, 0) for what in ("newly_refused", "dead_letters"))))
    return Cost(run.id, job, run.at, seconds, rows_read=read, rows_written=written, files_read=size.files, bytes_read=size.bytes)


def _as_json(run: Run, results: Sequence[Result]) -> str:
    return json.dumps([each.row(run.id, run.at) for each in results])


def main() -> None:
    """Curate once, with the settings of the environment and the days of the command line."""
    started, at = time.monotonic(), datetime.now(UTC)
    try:
        of, days = options(os.environ), days_of(sys.argv[1:])
        plan = read_plan(of.schemas)
        by_type = tables(plan)
        marks = Marks(read_marks(of.schemas), of.env["PRIVACY_KEY"])
        expected = read_expectations(
            of.schemas, properties_of({ref: schema for schemas in plan.values() for ref, schema in schemas.items()})
        )
        jvm = start_jvm(of)
        with alone(jvm, of.env):
            pairs = [(f"{lake.BRONZE}.events", lake.EVENTS), (f"{lake.BRONZE}.dead_letters", lake.DEAD_LETTERS)]
            if days is None:
                size = lake.gain(jvm, catalog_properties(of.env), pairs)
            else:
                size = lake.held(jvm, catalog_properties(of.env), f"{lake.BRONZE}.events", *days.bounds)
            parallel = parallelism(size, of.limits)
            spark = open_session(of, parallel)
            lake.make_fixed_tables(spark)
            lake.make_typed_tables(spark, by_type.values())
            run = Run(of.env.get("AIRFLOW_CTX_DAG_RUN_ID", f"manual__{at.isoformat()}"), at, by_type, expected, parallel.split_bytes, marks)
            results: list[Result] = []
            if days is None:
                done, results = curate_events(spark, run)
                done |= curate_dead_letters(spark, parallel.split_bytes)
            else:
                done = curate_again(spark, run, days)
            lake.record(spark, _cost(run, "silver" if days is None else "backfill", done, size, round(time.monotonic() - started, 1)))
    except (OptionsError, PlanError, ExpectationsError, lake.TableMismatch, Busy, NoLake, NoSpark) as error:
        sys.exit("\n".join(f"curation: {line}" for line in getattr(error, "problems", [error])))
    how = {
        "input_files": size.files,
        "input_bytes": size.bytes,
        **asdict(parallel),
        "unmet": [str(each) for each in quality.unmet(results)],
    }
    print(json.dumps(done | how | {"seconds": round(time.monotonic() - started, 1)}), flush=True)
    close_session(spark)
    if broken := [each for each in quality.unmet(results) if each.of.level == "fail" and not each.of.of_rows]:
        sys.exit("\n".join(f"curation: all was written, but an expectation does not hold: {each}" for each in broken))


if __name__ == "__main__":
    main()
