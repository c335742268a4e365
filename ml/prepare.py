"""The first step: features and labels of all rows by Spark, checked for leaks, kept as Parquet."""

import shutil
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ml import leaks
from ml.contract import AS_OF, LABEL, FeatureSet
from ml.engines import JARS
from ml.errors import BadData, Leak
from ml.keeping import Run, step, write_json
from ml.scenario import SCORE, Scenario, load, moment, units
from ml.spark import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def prepare(
    scenario: Scenario, run: Run, env: Mapping[str, str], cores: int, until: date | Literal["newest"] | None = None
) -> dict[str, Any]:
    """Compute and keep all rows whose label is known, and say which units there are. Raises Leak, BadData, BadScenario.

    `until` moves the scenario's split, so that its held-out time ends with that day (not included), or with the newest row whose label is
    known.
    """
    of: FeatureSet = load(scenario.features, "features")
    source = load(scenario.data, "data")
    if unknown := sorted({*scenario.baseline.columns, *scenario.bounds.stable} - {*of.columns, SCORE}):
        raise BadData(f"{scenario.name}: {scenario.features} has no feature {', '.join(unknown)}; it has {', '.join(of.columns)}")
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "scenario.yaml").write_text(scenario.dump())
    with step(run.folder, "prepare", [run.folder / "scenario.yaml"]) as figures:
        with session(env, cores, lake=bool(env.get("LAKE_CATALOG_URL") and env.get(JARS)), brief=True) as spark:
            data = source(spark, {**env, **scenario.settings})
            rows = _rows(of, data.tables)
            fresh = run.folder / "prepared.new"
            shutil.rmtree(fresh, ignore_errors=True)
            rows.write.parquet(str(fresh))
            kept = spark.read.parquet(str(fresh))
            checked = leaks.find(of, data.tables, kept)
            figures |= {"data_snapshot": data.snapshot, "rows": kept.count(), "moments": kept.select(AS_OF).distinct().count()}
            figures |= {"leak_check": {"moments": checked.moments, "rows": checked.rows, "leaks": [str(leak) for leak in checked.leaks]}}
            if checked.leaks:
                shutil.rmtree(fresh)
                raise Leak(f"{scenario.name}: {'; '.join(str(leak) for leak in checked.leaks)}")
            if until:
                scenario = scenario.ending(_end(kept) if until == "newest" else until)
                (run.folder / "scenario.yaml").write_text(scenario.dump())
            figures["split"] = msgspec.to_builtins(scenario.split)
            found = units(scenario, _counts(kept, scenario))
        shutil.rmtree(run.prepared, ignore_errors=True)
        fresh.rename(run.prepared)
        write_json(run.folder / "units.json", found)
        figures["units"] = len(found)
    return figures


def _rows(of: FeatureSet, tables: Any) -> "DataFrame":
    from pyspark.sql import functions as F

    asked = of.asked(tables)
    described = of.features(tables, asked)
    if dropped := sorted(set(asked.columns) - set(described.columns)):
        raise BadData(f"features: {', '.join(dropped)} of `asked` is not in what `features` gives: it has to add columns, and drop none")
    numbers = [F.col(name).cast("double").alias(name) for name in of.columns]
    others = [name for name in described.columns if name not in of.columns]
    return of.label(tables, described.select(*others, *numbers)).where(F.col(LABEL).isNotNull())


def _end(rows: "DataFrame") -> date:
    """The day after the last row. Raises BadData where there is none."""
    from pyspark.sql import functions as F

    [[last]] = rows.agg(F.max(AS_OF)).collect()
    if last is None:
        raise BadData("no label is known yet: there is nothing to learn from")
    day: date = last.date() + timedelta(days=1)
    return day


def _counts(rows: "DataFrame", scenario: Scenario) -> dict[Any, tuple[int, int]]:
    """For each combination of the set's columns: rows to learn from, rows to be judged on."""
    from pyspark.sql import functions as F

    if scenario.set is None:
        return {}
    if missing := sorted(set(scenario.set.per) - set(rows.columns)):
        raise BadData(f"{scenario.name}: rows have no column {', '.join(missing)} for `set.per`; they have {', '.join(rows.columns)}")
    split = scenario.split
    learnt = F.col(AS_OF) + F.make_dt_interval(secs=F.lit(scenario.horizon.total_seconds())) <= F.lit(moment(split.test_from))
    if split.learn_from:
        learnt &= F.col(AS_OF) >= F.lit(moment(split.learn_from))
    judged = (F.col(AS_OF) >= F.lit(moment(split.test_from))) & (F.col(AS_OF) < F.lit(moment(split.test_until)))
    counted = rows.groupBy(*scenario.set.per).agg(F.count_if(learnt).alias("learnt"), F.count_if(judged).alias("judged"))
    return {tuple(str(row[name]) for name in scenario.set.per): (row["learnt"], row["judged"]) for row in counted.collect()}
