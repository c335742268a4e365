"""The Iceberg tables of silver: made, widened, read by ranges of snapshots, appended to. All I/O of curation goes through here."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from py4j.java_gateway import JavaObject
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, StructType

from dags.curation.parallelism import Input
from dags.curation.plan import Table, ddl, quoted
from dags.curation.silver import IDENTITY
from dags.runs import RUNS, Cost, columns

BRONZE = "lake.bronze"
SILVER = "lake.silver"
EVENTS, QUARANTINE, DEAD_LETTERS = f"{SILVER}.events", f"{SILVER}.quarantine", f"{SILVER}.dead_letters"
# The last snapshot of the bronze table that a silver table holds wholly; a property of the silver table.
WATERMARK = "headrace.curated-snapshot"
# The snapshot of each table of silver when a run was last through, as JSON; a property of silver.events, set with the watermark.
COMPLETED = "headrace.completed-snapshots"
# The results of a run's expectations as JSON until they stand in QUALITY; a property of silver.events, set with the watermark.
RESULTS = "headrace.quality-results"
_HASHED = "headrace.identity-hashed"
# Up to here the identities of new rows are looked up in silver.events; above, the two are joined. (A million of them are 16 MB.)
_MOST_LOOKED_UP = 1_000_000
# Up to here their rows are asked for one by one, so that Parquet's statistics spare most of the table.
_MOST_NAMED = 200

QUALITY = "lake.gold.quality_results"

BRONZE_EVENT = """source string, id string, type string, time timestamp, subject string, dataschema string, {data} string,
    enrichment string, received_at timestamp, enriched_at timestamp, loaded_at timestamp, collector_id string, protocol string,
    key_id string, client string, user_agent string, kafka_topic string, kafka_partition int, kafka_offset bigint, content_hash string"""
TYPED_SCHEMA = BRONZE_EVENT.format(data="data_json")
FLAGS_SCHEMA = "is_late boolean, clock_skew_seconds double"
EVENTS_SCHEMA = "source string, id string, type string, time timestamp, received_at timestamp, content_hash string, identity_hash bigint"
QUARANTINE_SCHEMA = BRONZE_EVENT.format(data="data") + ", reason string, detail string"
DEAD_LETTERS_SCHEMA = """dead_letter_id string, service string, reason string, detail string, rejected_at timestamp, payload string,
    payload_encoding string, id string, source string, type string, subject string, time string, received_at timestamp, key_id string,
    origin_topic string, origin_partition int, origin_offset bigint, loaded_at timestamp, kafka_topic string, kafka_partition int,
    kafka_offset bigint"""
QUALITY_SCHEMA = "run_id string, at timestamp, type string, expectation string, check string, level string, checked bigint, failed bigint"

_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "50",
}


class TableMismatch(Exception):
    """A table in the lake cannot hold what the tracking plan says; the message says what to do."""


@dataclass(frozen=True)
class Range:
    """The rows that a bronze table gained since a silver table was last curated, up to its snapshot `end`; `whole`: all that it has."""

    rows: DataFrame
    end: str
    whole: bool


def make_fixed_tables(spark: SparkSession) -> None:
    """`silver.events`, `.quarantine` and `.dead_letters`, where they are not there yet."""
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {SILVER}")
    _create(spark, EVENTS, EVENTS_SCHEMA, None, "One row for each identity (source, id) over all event types")
    _hash_identities(spark)
    _create(spark, QUARANTINE, QUARANTINE_SCHEMA, None, "Events that curation refused, with the reason")
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {QUALITY.rpartition('.')[0]}")
    _create(spark, QUALITY, QUALITY_SCHEMA, "months(at)", "What each run of curation found of each expectation")
    _create(spark, RUNS, columns("spark"), "months(started_at)", "What each run of curation and upkeep cost")
    _create(spark, DEAD_LETTERS, DEAD_LETTERS_SCHEMA, "months(rejected_at)", "One row for each dead_letter_id")


def make_typed_tables(spark: SparkSession, tables: Iterable[Table]) -> None:
    """The table of each event type: made where it is not there, widened where the plan gained properties. Raises TableMismatch."""
    for table in tables:
        name = f"{SILVER}.{table.name}"
        flags = [f"{field.name} {field.dataType.simpleString()}" for field in StructType.fromDDL(FLAGS_SCHEMA)]
        own = [f"{quoted(c.column)} {ddl(c.type)}{_comment(c.description)}" for c in table.columns]
        comment = f"Events of type {table.type}, checked, one row for each identity"
        if _create(spark, name, ", ".join([TYPED_SCHEMA, *flags, *own]), "months(time)", comment):
            continue
        wanted = StructType.fromDDL(", ".join([*flags, *(f"{quoted(c.column)} {ddl(c.type)}" for c in table.columns)]))
        for path, type in _additions(name, (), spark.table(name).schema, wanted):
            spark.sql(f"ALTER TABLE {name} ADD COLUMN {'.'.join(map(quoted, path))} {type.simpleString()}")


def gain(jvm: Any, properties: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> Input:
    """How much `new_rows` will read of each pair of tables (bronze, silver), by Iceberg's metadata, before Spark starts."""
    catalog = _catalog(jvm, properties)
    identified = jvm.org.apache.iceberg.catalog.TableIdentifier.parse
    files = size = 0
    for bronze, silver in ([identified(name.removeprefix("lake.")) for name in pair] for pair in pairs):
        if not catalog.tableExists(bronze):
            continue
        table = catalog.loadTable(bronze)
        since, current = _since(jvm, table, catalog.loadTable(silver) if catalog.tableExists(silver) else None), table.currentSnapshot()
        if current is None or current.snapshotId() == since:
            continue
        if since is None:
            found = [("total-data-files", "total-files-size", current.summary())]
        else:
            found = [("added-data-files", "added-files-size", summary) for summary in _appends(table, current, since)]
        files += sum(int(summary.get(number) or 0) for number, _, summary in found)
        size += sum(int(summary.get(length) or 0) for _, length, summary in found)
    catalog.close()
    return Input(files, size)


def held(jvm: Any, properties: Mapping[str, str], table: str, first: str, end: str) -> Input:
    """How many files of `table` have rows received from `first` on and before `end` (RFC 3339), by Iceberg's metadata."""
    catalog = _catalog(jvm, properties)
    name = jvm.org.apache.iceberg.catalog.TableIdentifier.parse(table.removeprefix("lake."))
    files = size = 0
    if catalog.tableExists(name):
        conditions = jvm.org.apache.iceberg.expressions.Expressions
        received = getattr(conditions, "and")(conditions.greaterThanOrEqual("received_at", first), conditions.lessThan("received_at", end))
        tasks = catalog.loadTable(name).newScan().filter(received).planFiles().iterator()
        while tasks.hasNext():
            files, size = files + 1, size + tasks.next().file().fileSizeInBytes()
    catalog.close()
    return Input(files, size)


def _catalog(jvm: Any, properties: Mapping[str, str]) -> JavaObject:
    given = jvm.java.util.HashMap()
    for name, value in properties.items():
        given[name.removeprefix(".")] = value
    catalog = jvm.org.apache.iceberg.jdbc.JdbcCatalog()
    catalog.setConf(jvm.org.apache.hadoop.conf.Configuration())
    catalog.initialize("lake", given)
    return catalog


def _appends(table: JavaObject, snapshot: JavaObject | None, since: int) -> Iterator[JavaObject]:
    """The summaries of the commits that added rows, from `snapshot` back to `since`."""
    while snapshot is not None and snapshot.snapshotId() != since:
        if snapshot.operation() == "append":
            yield snapshot.summary()
        before = snapshot.parentId()
        snapshot = table.snapshot(before) if before is not None else None


def new_rows(spark: SparkSession, bronze: str, silver: str, split_bytes: int) -> Range | None:
    """What `bronze` gained since the watermark of `silver`: all of it where that snapshot is unknown or expired, None where nothing."""
    if not spark.catalog.tableExists(bronze):
        return None
    table = _iceberg(spark, bronze)
    current, since = table.currentSnapshot(), _since(_jvm(spark), table, _iceberg(spark, silver))
    if current is None or current.snapshotId() == since:
        return None
    end = str(current.snapshotId())
    reader = spark.read.format("iceberg").option("split-size", split_bytes)
    if since is not None:
        reader = reader.option("start-snapshot-id", since).option("end-snapshot-id", end)
    else:
        reader = reader.option("versionAsOf", end)
    return Range(reader.load(bronze), end, since is None)


def _since(jvm: Any, bronze: JavaObject, silver: JavaObject | None) -> int | None:
    """The watermark of `silver`, where `bronze` still has what came since."""
    said = silver.properties().get(WATERMARK) if silver is not None else None
    if said is None or not jvm.org.apache.iceberg.util.SnapshotUtil.isAncestorOf(bronze, int(said)):
        return None
    return int(said)


def set_watermark(spark: SparkSession, silver: str, end: str) -> None:
    """Remember that `silver` holds everything up to the snapshot `end`."""
    remember(spark, silver, {WATERMARK: end})


def remember(spark: SparkSession, table: str, properties: Mapping[str, str]) -> None:
    """Set properties of a table, in one commit."""
    change = _iceberg(spark, table).updateProperties()
    for name, value in properties.items():
        change.set(name, value)
    change.commit()


def publish_results(spark: SparkSession) -> None:
    """Put the results that stand in RESULTS into QUALITY, unless they are there: so those of a run that is cut off come once."""
    pending = json.loads(_iceberg(spark, EVENTS).properties().get(RESULTS) or "[]")
    if not pending:
        return
    there = spark.table(QUALITY).where(
        (F.col("at") == F.lit(pending[0]["at"]).cast("timestamp")) & (F.col("run_id") == pending[0]["run_id"])
    )
    if there.isEmpty():
        append(_given(spark, QUALITY_SCHEMA, pending), QUALITY)


def record(spark: SparkSession, cost: Cost) -> None:
    """Add what a run cost to RUNS."""
    append(_given(spark, columns("spark"), [cost.row()]), RUNS)


def _given(spark: SparkSession, schema: str, rows: list[dict[str, Any]]) -> DataFrame:
    """A few rows that we have here."""
    kind = f"array<struct<{', '.join(f'{f.name}: {f.dataType.simpleString()}' for f in StructType.fromDDL(schema))}>>"
    return spark.range(1).select(F.inline(F.from_json(F.lit(json.dumps(rows)), kind)))


def snapshots(spark: SparkSession, tables: Iterable[str]) -> str:
    """The present snapshot of each table, as JSON: for COMPLETED."""
    current = {table: _iceberg(spark, table).currentSnapshot() for table in tables}
    return json.dumps({table: snapshot.snapshotId() for table, snapshot in current.items() if snapshot is not None})


def unfinished(spark: SparkSession, table: str, whole: bool) -> DataFrame | None:
    """What `table` gained since a run was last through: of a run that was cut off, or None. All of it where that is not known, or where
    bronze is read as a `whole`.

    Runs that were through left nothing out, so only these rows can stand for work that was half done.
    """
    now = _iceberg(spark, table)
    current = now.currentSnapshot()
    if current is None:
        return None
    known = _iceberg(spark, EVENTS).properties().get(COMPLETED)
    if whole or known is None:
        return spark.table(table)
    then = json.loads(known).get(table)
    if current.snapshotId() == then:
        return None
    if then is None or not _jvm(spark).org.apache.iceberg.util.SnapshotUtil.isAncestorOf(now, then):
        return spark.table(table)
    return spark.read.format("iceberg").option("start-snapshot-id", then).option("end-snapshot-id", current.snapshotId()).load(table)


def known_identities(rows: DataFrame, number: int) -> DataFrame:
    """source, id and content_hash of silver.events for the identities of `rows` (and perhaps others), of which there are about `number`.

    The cost must follow the new rows. No order or partition of the table helps: identities are random, so ten thousand of them are
    everywhere. So of all rows only `identity_hash` is read, 8 bytes each; the few that are found are then read whole, and compared whole.
    """
    events = rows.sparkSession.table(EVENTS)
    if number > _MOST_LOOKED_UP:
        return events
    asked = rows.select(F.xxhash64(*IDENTITY).alias("identity_hash")).distinct()
    found = events.select("identity_hash").join(F.broadcast(asked), "identity_hash", "left_semi").distinct().limit(_MOST_NAMED + 1)
    hashes = [row["identity_hash"] for row in found.collect()]
    if len(hashes) <= _MOST_NAMED:
        return events.where(F.col("identity_hash").isin(hashes))
    return events.join(F.broadcast(asked), "identity_hash", "left_semi")


def kept(rows: DataFrame) -> DataFrame:
    """`rows` as they are now. (`persist` would not do: Spark computes it again once a table that it was read from is written.)"""
    return rows.localCheckpoint(eager=True, storageLevel=StorageLevel.DISK_ONLY)


def append_events(rows: DataFrame) -> None:
    """Add the identities of judged `rows` to EVENTS."""
    columns = ("source", "id", "type", "time", "received_at", "content_hash", F.xxhash64(*IDENTITY).alias("identity_hash"))
    append(rows.select(*columns), EVENTS)


def update(rows: DataFrame, table: str, key: Iterable[str]) -> None:
    """Give the rows of `table` that have the `key` of one of `rows` its other columns, in one commit."""
    key = tuple(key)
    others = ", ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in rows.columns if name not in key)
    _merge(rows, table, key, f"UPDATE SET {others}")


def remove(keys: DataFrame, table: str, key: Iterable[str]) -> None:
    """Take the rows with these keys out of `table`, in one commit."""
    _merge(keys, table, key, "DELETE")


def _merge(rows: DataFrame, table: str, key: Iterable[str], do: str) -> None:
    rows.createOrReplaceTempView("merged")
    same = " AND ".join(f"t.{quoted(name)} = s.{quoted(name)}" for name in key)
    rows.sparkSession.sql(f"MERGE INTO {table} t USING merged s ON {same} WHEN MATCHED THEN {do}")


def append(rows: DataFrame, table: str) -> None:
    """Add `rows` in one commit. Columns that `table` has beyond them stay empty."""
    have = set(rows.columns)
    missing = [field for field in rows.sparkSession.table(table).schema if field.name not in have]
    if missing:
        rows = rows.selectExpr("*", *(f"CAST(NULL AS {field.dataType.simpleString()}) AS {quoted(field.name)}" for field in missing))
    rows.writeTo(table).append()


def without_those_in(rows: DataFrame, others: DataFrame | None, keys: Iterable[str]) -> DataFrame:
    """The rows whose `keys` are not in `others`."""
    return rows if others is None else rows.join(others.select(*keys), list(keys), "left_anti")


def _hash_identities(spark: SparkSession) -> None:
    """Order silver.events by its hash, and give a hash to the rows of a table that was made before there was one. Once; in one commit."""
    if _iceberg(spark, EVENTS).properties().get(_HASHED):
        return
    if "identity_hash" not in spark.table(EVENTS).columns:
        spark.sql(f"ALTER TABLE {EVENTS} ADD COLUMN identity_hash bigint")
    if _iceberg(spark, EVENTS).currentSnapshot() is not None:
        kept = [F.col(name) for name in spark.table(EVENTS).columns if name != "identity_hash"]
        hashed = spark.table(EVENTS).select(*kept, F.xxhash64(*IDENTITY).alias("identity_hash"))
        hashed.writeTo(EVENTS).overwrite(F.lit(True))
    spark.sql(f"ALTER TABLE {EVENTS} WRITE LOCALLY ORDERED BY identity_hash")
    # Small groups of rows, so that those of one hash are found without the others.
    spark.sql(f"ALTER TABLE {EVENTS} SET TBLPROPERTIES ('write.parquet.row-group-size-bytes' = '16777216', '{_HASHED}' = 'true')")


def _create(spark: SparkSession, name: str, columns: str, partitioned_by: str | None, comment: str) -> bool:
    if spark.catalog.tableExists(name):
        return False
    properties = ", ".join(f"'{key}' = '{value}'" for key, value in _PROPERTIES.items())
    partitioning = f"PARTITIONED BY ({partitioned_by})" if partitioned_by else ""
    table = f"{name} ({columns}) USING iceberg {partitioning} COMMENT '{comment}' TBLPROPERTIES ({properties})"
    spark.sql(f"CREATE TABLE IF NOT EXISTS {table}")
    return True


def _comment(description: str) -> str:
    text = description.replace("\\", "\\\\").replace("'", "\\'")
    return f" COMMENT '{text}'" if text else ""


def _additions(table: str, path: tuple[str, ...], have: DataType, want: DataType) -> list[tuple[tuple[str, ...], DataType]]:
    """What to add to `have` so that it holds `want`: (path, type) for each new column or field."""
    match have, want:
        case StructType(), StructType():
            there: Mapping[str, DataType] = {field.name: field.dataType for field in have}
            found: list[tuple[tuple[str, ...], DataType]] = []
            for field in want:
                place = (*path, field.name)
                if field.name in there:
                    found += _additions(table, place, there[field.name], field.dataType)
                else:
                    found.append((place, field.dataType))
            return found
        case ArrayType(), ArrayType():
            return _additions(table, (*path, "element"), have.elementType, want.elementType)
    if have != want:
        raise TableMismatch(
            f"{table}: column {'.'.join(path)} is {have.simpleString()} but the tracking plan says {want.simpleString()}: "
            "a property that changes its type needs a new MODEL version, such as 2-0-0, beside the old one"
        )
    return []


def _iceberg(spark: SparkSession, name: str) -> JavaObject:
    return _jvm(spark).org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, name)


def _jvm(spark: SparkSession) -> Any:
    return spark._jvm
