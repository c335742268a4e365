"""Bronze to silver: pure functions of DataFrames.

An identity is (source, id). The first sending in the order of Kafka whose checks pass wins and is remembered in `silver.events`; the same
content again is a duplicate; other content is a conflict and goes to quarantine. Every verdict follows from the bronze rows that are read
and from `silver.events` alone, so reading the same rows twice gives the same verdicts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from dags.curation.expectations import Expectation
from dags.curation.plan import ATTRIBUTES, TEXT, Array, ColumnType, Field, Scalar, Struct, Table, ddl, parse_ddl

# Verdicts.
NEW = "new"  # a row of silver.events and of its typed table
KNOWN = "known"  # in silver.events already; its typed row is written where a run was cut off before it
DUPLICATE = "duplicate"
QUARANTINE = "quarantine"

# A clock that was never set stands near 1970, and no sender may live further in the future than this.
OLDEST_TIME = "1980-01-01T00:00:00Z"
MOST_AHEAD = "INTERVAL 1 DAY"
# Received so long after its time, an event may be missing from what was looked at meanwhile.
LATE = "INTERVAL 1 HOUR"
_ABSURD = f" is before {OLDEST_TIME[:10]} or more than a day after received_at"

POSITION = ("kafka_topic", "kafka_partition", "kafka_offset")
IDENTITY = ("source", "id")
_CORRUPT = "_corrupt"


def with_content_hash(bronze: DataFrame) -> DataFrame:
    """Adds `content_hash`: SHA-256 hex over type, subject, dataschema and data. Order of keys and white space in data do not count."""
    data = F.coalesce(F.expr("CAST(try_parse_json(data) AS STRING)"), F.col("data"))
    return bronze.withColumn("content_hash", F.sha2(F.to_json(F.array("type", "subject", "dataschema", data)), 256))


def with_problem(bronze: DataFrame, tables: Iterable[Table], expected: Mapping[str, Sequence[Expectation]]) -> DataFrame:
    """Adds `reason` and `detail`: why a row cannot be in silver, or null; and `unmet`: names of the expectations that it breaks.

    Reasons are those of `headrace.dead_letter.Reason`.
    """
    tables = list(tables)
    known_type = F.col("type").isin([table.type for table in tables])
    shapes = {ref: shape for table in tables for ref, shape in table.by_ref.items()}
    of_type = reduce(lambda found, t: found | ((F.col("type") == t.type) & F.col("dataschema").isin(list(t.by_ref))), tables, F.lit(False))
    # Columns of their own, so that Spark parses each text once.
    parsed = {f"_parsed_{i}": F.when(F.col("dataschema") == ref, _parsed(shape)) for i, (ref, shape) in enumerate(shapes.items())}
    fits, unmet, refused = F.lit(False), F.array().cast("array<string>"), F.lit("")
    for name, (ref, shape) in zip(parsed, shapes.items(), strict=True):
        of_ref = F.col("dataschema") == ref
        fits = F.when(of_ref, _fits_schema(F.col(name), shape)).otherwise(fits)
        broken = {one: _breaks(F.col(name), shape, one) for one in expected.get(ref.split("/")[0], ()) if one.of_rows}
        if broken:
            names = F.array(*(F.when(breaks, one.name) for one, breaks in broken.items()))
            unmet = F.when(of_ref, F.array_compact(names)).otherwise(unmet)
            words = [F.when(breaks, F.lit(str(one))) for one, breaks in broken.items() if one.level == "fail"]
            refused = F.when(of_ref, F.concat_ws("; ", *words)).otherwise(refused)
    time = F.col("time")
    absurd = (time < F.lit(OLDEST_TIME).cast("timestamp")) | (time > F.col("received_at") + F.expr(MOST_AHEAD))
    problem = (
        F.when(~known_type, _problem("unknown_type", F.concat(F.lit("type "), "type", F.lit(" is not in the tracking plan"))))
        .when(~of_type, _problem("unknown_schema", F.concat(F.lit("dataschema "), "dataschema", F.lit(" is not in the tracking plan"))))
        .when(absurd, _problem("invalid_attribute", F.concat(F.lit("time "), time.cast("string"), F.lit(_ABSURD))))
        .when(~fits, _problem("row_rejected", F.concat(F.lit("data does not fit the columns of "), "dataschema")))
        .when(refused != "", _problem("quality", F.concat(F.lit("this does not hold: "), refused)))
    )
    checked = bronze.withColumns(parsed).withColumn("problem", problem).withColumn("unmet", unmet)
    return checked.select(*bronze.columns, "unmet", "problem.reason", "problem.detail")


def judged(checked: DataFrame, index: DataFrame) -> DataFrame:
    """Adds `verdict`, and for conflicts `reason` and `detail`. `index` is silver.events."""
    known = index.select(*IDENTITY, F.col("content_hash").alias("known_hash"))
    rows = checked.join(known, list(IDENTITY), "left")
    valid = F.col("reason").isNull()
    order = [F.when(valid, 0).otherwise(1), F.col("kafka_partition"), F.col("kafka_offset")]
    first = Window.partitionBy(*IDENTITY).orderBy(*order)
    among_equals = Window.partitionBy(*IDENTITY, "content_hash", valid).orderBy(*order)
    rows = rows.withColumn("winning_hash", F.coalesce("known_hash", F.first("content_hash").over(first)))
    rows = rows.withColumn("rank", F.row_number().over(among_equals))
    same = F.col("content_hash") == F.col("winning_hash")
    is_known = F.col("known_hash").isNotNull()
    rows = rows.withColumn(
        "verdict",
        F.when(~valid & same & is_known, DUPLICATE)  # curated under an earlier plan
        .when(~valid | ~same, QUARANTINE)
        .when(F.col("rank") > 1, DUPLICATE)
        .when(is_known, KNOWN)
        .otherwise(NEW),
    )
    conflict = valid & ~same
    return rows.select(
        *(column for column in checked.columns if column not in ("reason", "detail")),
        "verdict",
        F.when(conflict, "id_conflict").otherwise(F.col("reason")).alias("reason"),
        F.when(conflict, "an event of the same source and id, but other content, came before").otherwise(F.col("detail")).alias("detail"),
    )


# Attributes of a typed table that bronze does not have by that name.
_ATTRIBUTES: Mapping[str, Callable[[str], Column]] = {
    "data_json": lambda name: F.col("data").alias(name),
    "is_late": lambda name: (F.col("time") < F.col("received_at") - F.expr(LATE)).alias(name),  # noqa: PLW0108 - needs a session
    "clock_skew_seconds": lambda name: F.greatest(F.lit(0.0), _seconds("time") - _seconds("received_at")).alias(name),
}


def _seconds(name: str) -> Column:
    return F.unix_micros(name) / 1e6


def typed(rows: DataFrame, table: Table) -> DataFrame:
    """Rows of one event type, whose checks passed, with the columns of `table`."""
    own = [_ATTRIBUTES.get(name, F.col)(name) for name in ATTRIBUTES]
    parts = []
    for ref, shape in table.by_ref.items():
        parsed = rows.where(F.col("dataschema") == ref).withColumn("_parsed", _parsed(shape))
        values = {f.column: _value(F.col("_parsed").getField(f.property), f.type) for f in shape.fields}
        parts.append(parsed.select(*own, *(values.get(c.column, F.lit(None)).cast(ddl(c.type)).alias(c.column) for c in table.columns)))
    return reduce(DataFrame.unionByName, parts)


def counts(rows: DataFrame) -> Mapping[tuple[str, str, bool], int]:
    """(verdict, type, is a conflict) -> number of rows."""
    grouped = rows.groupBy("verdict", "type", F.coalesce(F.col("reason") == "id_conflict", F.lit(False)).alias("conflict")).count()
    return {(row["verdict"], row["type"], row["conflict"]): row["count"] for row in grouped.collect()}


def unmet(rows: DataFrame) -> Mapping[tuple[str, tuple[str, ...]], int]:
    """(type, names of the expectations that a row breaks) -> number of rows."""
    grouped = rows.groupBy("type", "unmet").count().collect()
    return {(row["type"], tuple(row["unmet"] or ())): row["count"] for row in grouped}


def first_of_each(rows: DataFrame, key: str, *order: str) -> DataFrame:
    """One row for each `key`: the first in `order`."""
    ranked = rows.withColumn("_rank", F.row_number().over(Window.partitionBy(key).orderBy(*order)))
    return ranked.where("_rank = 1").drop("_rank")


def _problem(reason: str, detail: Column) -> Column:
    return F.struct(F.lit(reason).alias("reason"), detail.alias("detail"))


def _parsed(shape: Struct) -> Column:
    schema = parse_ddl(Struct((*shape.fields, Field(_CORRUPT, _CORRUPT, TEXT))))
    return F.from_json("data", schema, {"mode": "PERMISSIVE", "columnNameOfCorruptRecord": _CORRUPT})


def _fits_schema(parsed: Column, shape: Struct) -> Column:
    fits = (_fits(parsed.getField(f.property), f.type) for f in shape.fields)
    return reduce(lambda a, b: a & b, fits, parsed.getField(_CORRUPT).isNull())


def _breaks(parsed: Column, shape: Struct, one: Expectation) -> Column:
    """Whether a row breaks an expectation of rows."""
    of = next((each for each in shape.fields if each.property == one.of), None)
    if of is None:  # this version has no such property
        return F.lit(one.check == "present")
    value = _value(parsed.getField(of.property), of.type)
    if one.check == "present":
        return value.isNull()
    if one.check == "set":
        return F.coalesce(~value.isin(list(one.values)), F.lit(False))
    too_small = value < one.min if one.min is not None else F.lit(False)
    too_large = value > one.max if one.max is not None else F.lit(False)
    return F.coalesce(too_small | too_large, F.lit(False))


def _value(parsed: Column, type: ColumnType) -> Column:
    """The value in its final type, from what `parse_ddl` read."""
    match type:
        case Scalar("timestamp"):
            # RFC 3339 knows lower-case letters and leap seconds; Spark knows neither.
            return F.regexp_replace(F.upper(parsed), r":60(\.\d+)?", ":59.999999").try_cast("timestamp")
        case Scalar(name):
            return parsed.try_cast(name)
        case Array(of):
            return F.transform(parsed, lambda each: _value(each, of))
        case Struct(fields):
            return F.when(parsed.isNotNull(), F.struct(*(_value(parsed.getField(f.property), f.type).alias(f.column) for f in fields)))


def _fits(parsed: Column, type: ColumnType) -> Column:
    """Whether `_value` keeps all that was read."""
    match type:
        case Scalar("bigint"):
            return parsed.isNull() | F.coalesce(parsed.try_cast("bigint") == parsed, F.lit(False))
        case Scalar("timestamp" | "date"):
            return parsed.isNull() | _value(parsed, type).isNotNull()
        case Scalar():
            return F.lit(True)
        case Array(of):
            return parsed.isNull() | F.coalesce(F.forall(parsed, lambda each: _fits(each, of)), F.lit(False))
        case Struct(fields):
            return reduce(lambda a, b: a & b, (_fits(parsed.getField(f.property), f.type) for f in fields), F.lit(True))
