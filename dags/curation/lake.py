"""The Iceberg tables of silver: made, widened, read by ranges of snapshots, appended to. All I/O of curation goes through here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from py4j.java_gateway import JavaObject
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, DataType, StructType

from dags.curation.plan import Table, ddl, quoted

BRONZE = "lake.bronze"
SILVER = "lake.silver"
EVENTS, QUARANTINE, DEAD_LETTERS = f"{SILVER}.events", f"{SILVER}.quarantine", f"{SILVER}.dead_letters"
# The last snapshot of the bronze table that a silver table holds wholly; a property of the silver table.
WATERMARK = "headrace.curated-snapshot"

BRONZE_EVENT = """source string, id string, type string, time timestamp, subject string, dataschema string, {data} string,
    enrichment string, received_at timestamp, enriched_at timestamp, loaded_at timestamp, collector_id string, protocol string,
    key_id string, client string, user_agent string, kafka_topic string, kafka_partition int, kafka_offset bigint, content_hash string"""
TYPED_SCHEMA = BRONZE_EVENT.format(data="data_json")
EVENTS_SCHEMA = "source string, id string, type string, time timestamp, received_at timestamp, content_hash string"
QUARANTINE_SCHEMA = BRONZE_EVENT.format(data="data") + ", reason string, detail string"
DEAD_LETTERS_SCHEMA = """dead_letter_id string, service string, reason string, detail string, rejected_at timestamp, payload string,
    payload_encoding string, id string, source string, type string, subject string, time string, received_at timestamp, key_id string,
    origin_topic string, origin_partition int, origin_offset bigint, loaded_at timestamp, kafka_topic string, kafka_partition int,
    kafka_offset bigint"""

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
    """The rows that a bronze table gained since a silver table was last curated, up to its snapshot `end`."""

    rows: DataFrame
    end: str


def make_fixed_tables(spark: SparkSession) -> None:
    """`silver.events`, `.quarantine` and `.dead_letters`, where they are not there yet."""
    spark.sql(f"CREATE NAMESPACE IF NOT EXISTS {SILVER}")
    _create(spark, EVENTS, EVENTS_SCHEMA, None, "One row for each identity (source, id) over all event types")
    _create(spark, QUARANTINE, QUARANTINE_SCHEMA, None, "Events that curation refused, with the reason")
    _create(spark, DEAD_LETTERS, DEAD_LETTERS_SCHEMA, "months(rejected_at)", "One row for each dead_letter_id")


def make_typed_tables(spark: SparkSession, tables: Iterable[Table]) -> None:
    """The table of each event type: made where it is not there, widened where the plan gained properties. Raises TableMismatch."""
    for table in tables:
        name = f"{SILVER}.{table.name}"
        own = [f"{quoted(c.column)} {ddl(c.type)}{_comment(c.description)}" for c in table.columns]
        comment = f"Events of type {table.type}, checked, one row for each identity"
        if _create(spark, name, ", ".join([TYPED_SCHEMA, *own]), "months(time)", comment):
            continue
        wanted = StructType.fromDDL(", ".join(f"{quoted(c.column)} {ddl(c.type)}" for c in table.columns))
        for path, type in _additions(name, (), spark.table(name).schema, wanted):
            spark.sql(f"ALTER TABLE {name} ADD COLUMN {'.'.join(map(quoted, path))} {type.simpleString()}")


def new_rows(spark: SparkSession, bronze: str, silver: str) -> Range | None:
    """What `bronze` gained since the watermark of `silver`: all of it where that snapshot is unknown or expired, None where nothing."""
    if not spark.catalog.tableExists(bronze):
        return None
    table = _iceberg(spark, bronze)
    current = table.currentSnapshot()
    since = _iceberg(spark, silver).properties().get(WATERMARK)
    if current is None or str(current.snapshotId()) == since:
        return None
    end = str(current.snapshotId())
    reader = spark.read.format("iceberg")
    if since and _jvm(spark).org.apache.iceberg.util.SnapshotUtil.isAncestorOf(table, int(since)):
        reader = reader.option("start-snapshot-id", since).option("end-snapshot-id", end)
    else:
        reader = reader.option("versionAsOf", end)
    return Range(reader.load(bronze), end)


def set_watermark(spark: SparkSession, silver: str, end: str) -> None:
    """Remember that `silver` holds everything up to the snapshot `end`."""
    _iceberg(spark, silver).updateProperties().set(WATERMARK, end).commit()


def append(rows: DataFrame, table: str) -> None:
    """Add `rows` in one commit. Columns that `table` has beyond them stay empty."""
    have = set(rows.columns)
    missing = [field for field in rows.sparkSession.table(table).schema if field.name not in have]
    if missing:
        rows = rows.selectExpr("*", *(f"CAST(NULL AS {field.dataType.simpleString()}) AS {quoted(field.name)}" for field in missing))
    rows.writeTo(table).append()


def without_those_in(rows: DataFrame, table: str, keys: Iterable[str]) -> DataFrame:
    """The rows whose `keys` are not in `table` yet."""
    return rows.join(rows.sparkSession.table(table).select(*keys), list(keys), "left_anti")


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
