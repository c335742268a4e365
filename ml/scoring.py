"""Batch inference: what the champion has not scored yet, by Spark and ONNX, appended to a table of the lake. Safe to run again.

The table is locked (in PostgreSQL, as curation locks silver) from the question what is missing to the one commit that adds it: so a row is
scored once by a version, through any kill and beside any other run.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from headrace.scores import CHAMPIONS
from ml.contract import AS_OF, FeatureSet
from ml.errors import Away, BadData, Drifted
from ml.export import Scorer
from ml.keeping import Run, step
from ml.measure import Histogram, drift
from ml.registry import CARD_FILE, REFERENCES_FILE, Registry, Version
from ml.scenario import Scenario, load, moment
from ml.spark import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_MODEL = "_model"
_SAMPLE = 50_000  # about so many rows of a model are looked at for drift


class Champion(NamedTuple):
    """A model that serves: of the rows that have these values of the scenario's set."""

    version: Version
    values: Mapping[str, str]
    features: Sequence[str]
    references: Mapping[str, Histogram]
    onnx: bytes


def champions(scenario: Scenario, registry: Registry) -> dict[str, Champion]:
    """Those of a scenario, by the model's name. Raises RegistryError, BadData where nobody has promoted one."""
    of: FeatureSet = load(scenario.features, "features")
    found = {}
    for model in registry.models():
        if model.champion is None or not (model.name == scenario.name or model.name.startswith(f"{scenario.name}-")):
            continue
        version = registry.version(model.name, model.champion)
        card = json.loads(registry.file(version, CARD_FILE))
        if card["scenario"] != scenario.name:
            continue
        if tuple(card["features"]) != of.columns:
            raise BadData(
                f"{model.name} {version.number} takes {', '.join(card['features'])}, and {scenario.features} has others: train and promote"
            )
        references = msgspec.convert(json.loads(registry.file(version, REFERENCES_FILE))["judged"], dict[str, Histogram])
        found[model.name] = Champion(version, card["values"], card["features"], references, registry.onnx(version))
    if not found:
        raise BadData(f"{scenario.name}: no model is champion: `headrace models list` shows them, `headrace models promote` makes one")
    return found


def score(scenario: Scenario, run: Run, env: Mapping[str, str], *, url: str, since: date | None, cores: int) -> dict[str, Any]:
    """Score every row from `since` on (the end of the held-out time, where it is not given) that its champion has not scored yet.

    Raises Drifted, with nothing written, where a stable column looks otherwise than in the time that the champion was judged on.
    """
    of: FeatureSet = load(scenario.features, "features")
    run.folder.mkdir(parents=True, exist_ok=True)
    with step(run.folder, "score", []) as figures, Registry(url) as registry:
        serving = champions(scenario, registry)
        with session(env, cores, lake=True) as spark:
            data = load(scenario.data, "data")(spark, {**env, **scenario.settings})
            table = f"lake.{scenario.table}"
            with _alone(spark, env, table):
                asked = of.asked(data.tables).where(_at_least(since or scenario.split.test_until))
                _make_table(spark, table, asked.select(*of.key))
                missing = _missing(spark, table, of, asked, serving)
                inputs = run.folder / "inputs"
                began = time.perf_counter()
                of.features(data.tables, missing).write.mode("overwrite").parquet(str(inputs))
                described = time.perf_counter()
                rows = spark.read.parquet(str(inputs))
                figures |= {"data_snapshot": data.snapshot, "models": {name: each.version.number for name, each in serving.items()}}
                figures["rows"] = rows.count()
                if figures["rows"]:
                    figures["drift"] = _check_drift(rows, serving, scenario)
                    scored(rows, of, serving, run.name).writeTo(table).append()
                _name_champions(spark, table, serving)
                written = time.perf_counter()
                figures |= {"feature_seconds": round(described - began, 2), "score_seconds": round(written - described, 2)}
    return figures


def scored(rows: "DataFrame", of: FeatureSet, serving: Mapping[str, Champion], run: str) -> "DataFrame":
    """A score for each of `rows` by the model in its column `_model`. Streams in Arrow batches: memory does not grow with the rows."""
    from pyspark.sql import types as T

    keys = [rows.schema[name] for name in (*of.key, AS_OF)]
    own = [
        T.StructField("model", T.StringType()),
        T.StructField("model_version", T.IntegerType()),
        T.StructField("score", T.DoubleType()),
        T.StructField("scored_at", T.TimestampType()),
        T.StructField("run_id", T.StringType()),
    ]
    taken = rows.select(*of.key, AS_OF, _MODEL, *of.columns)
    models = {name: (each.version.number, each.onnx) for name, each in serving.items()}
    return taken.mapInArrow(batch_scorer(models, [*of.key, AS_OF], of.columns, run), T.StructType([*keys, *own]))


def batch_scorer(
    models: Mapping[str, tuple[int, bytes]], keys: Sequence[str], columns: Sequence[str], run: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker of Spark does to its batches: a function of batches with `keys`, `_model` and `columns`."""

    def run_all(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        scorers: dict[str, Scorer] = {}
        for batch in batches:
            names = np.asarray(batch.column(_MODEL).to_pylist(), dtype=object)
            x = np.column_stack([batch.column(name).to_numpy(zero_copy_only=False).astype(np.float32) for name in columns])
            scores = np.empty(len(names), np.float64)
            for name in set(names):
                if name not in scorers:
                    scorers[name] = Scorer.of(models[name][1], len(columns))
                mine = names == name
                scores[mine] = scorers[name](x[mine])
            arrays = [batch.column(key) for key in keys]
            arrays += [
                pa.array(names, pa.string()),
                pa.array([models[name][0] for name in names], pa.int32()),
                pa.array(scores),
                pa.array([datetime.now(UTC)] * len(names), pa.timestamp("us", "UTC")),
                pa.array([run] * len(names)),
            ]
            yield pa.RecordBatch.from_arrays(arrays, [*keys, "model", "model_version", "score", "scored_at", "run_id"])

    return run_all


def _missing(spark: "SparkSession", table: str, of: FeatureSet, asked: "DataFrame", serving: Mapping[str, Champion]) -> "DataFrame":
    """The rows of each champion that it has not scored, with its model's name in `_model`."""
    from pyspark.sql import functions as F

    parts = []
    for name, each in serving.items():
        mine = asked
        for column, value in each.values.items():
            mine = mine.where(F.col(column).cast("string") == value)
        done = spark.table(table).where((F.col("model") == name) & (F.col("model_version") == each.version.number)).select(*of.key, AS_OF)
        parts.append(mine.join(done, [*of.key, AS_OF], "left_anti").withColumn(_MODEL, F.lit(name)))
    every = parts[0]
    for part in parts[1:]:
        every = every.unionByName(part)
    return every


def _check_drift(rows: "DataFrame", serving: Mapping[str, Champion], scenario: Scenario) -> dict[str, dict[str, float]]:
    """The PSI of each stable column, by model, over a sample. Raises Drifted."""
    from pyspark.sql import functions as F

    found, problems = {}, []
    stable = [name for name in scenario.bounds.stable if name in rows.columns]  # the score is not known yet
    for name, each in serving.items():
        of_model = rows.where(F.col(_MODEL) == name).select(*stable)
        share = min(1.0, _SAMPLE / max(of_model.count(), 1))
        sample = of_model.sample(share, scenario.seed).toPandas()
        # in the model's own precision, as the references are
        columns = {column: sample[column].to_numpy(np.float32).astype(np.float64) for column in sample} if len(sample) else {}
        found[name] = {column: round(value, 4) for column, value in drift(each.references, columns).items()}
        worst = {column: value for column, value in found[name].items() if not value <= scenario.bounds.most_drift}
        problems += [f"{name}: {column} (PSI {value:.2f}, at most {scenario.bounds.most_drift:g})" for column, value in worst.items()]
    if problems:
        raise Drifted(
            f"what is to be scored looks otherwise than what the champion was judged on: {'; '.join(problems)}: nothing was scored"
        )
    return found


def _make_table(spark: "SparkSession", table: str, keys: "DataFrame") -> None:
    typed = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in keys.schema)
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {table.rpartition('.')[0]}")
    spark.sql(
        f"CREATE TABLE IF NOT EXISTS {table} ({typed}, {AS_OF} timestamp, model string, model_version int, score double,"
        " scored_at timestamp, run_id string) USING iceberg PARTITIONED BY (model, model_version)"
    )


def _name_champions(spark: "SparkSession", table: str, serving: Mapping[str, Champion]) -> None:
    """Say in the table whose scores hold, now that these are there: who looks one up takes no other's (not one's that was rolled back)."""
    said = json.dumps({name: each.version.number for name, each in sorted(serving.items())})
    rows = spark.sql(f"SHOW TBLPROPERTIES {table}").collect()
    if said not in (row["value"] for row in rows if row["key"] == CHAMPIONS):
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ('{CHAMPIONS}' = '{said}')")


def _at_least(since: date) -> Any:
    from pyspark.sql import functions as F

    return F.col(AS_OF) >= F.lit(moment(since))


@contextmanager
def _alone(spark: "SparkSession", env: Mapping[str, str], table: str) -> Iterator[None]:
    from dags.curation.session import Busy, NoLake, alone

    try:
        with alone(spark._jvm, env, lock=f"headrace scores {table}"):
            yield
    except (Busy, NoLake) as error:
        raise Away(str(error)) from None
