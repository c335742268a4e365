"""Repurchase: will a customer buy again within 90 days, as of each purchase? The features are those that the enrichment API computes."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.errors import in_a_line
from headrace.features import FEATURES, HORIZON_DAYS, STATE, features, states_of
from ml.contract import AS_OF, KNOWN_AT, LABEL, Data, Tables
from ml.errors import BadData

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

FILE, SOURCE = "ENRICHMENT_API_DATA_FILE", "REPURCHASE_SOURCE"
_CUSTOMER: Final = ("source", "customer_id")  # as in gold: `headrace privacy erase` finds people by these names, in scores too


def purchases(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The purchases of a file in CDNOW's form (a heading; customer, yyyymmdd, items, dollars). Raises BadData.

    Its lines have no name: a purchase is called by its day and its place among the customer's purchases of that day.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    path = Path(settings.get(FILE, ""))
    if not path.is_file():
        raise BadData(f"{path}: no such file (setting {FILE}; `make up` fetches it)")
    parts = F.split(F.trim("value"), r"\s+")
    lines = spark.read.text(str(path.resolve())).where(F.trim("value").rlike(r"^\d"))
    of_day = Window.partitionBy("customer_id", "day").orderBy("quantity", "amount_usd")  # those that are alike in all this are alike in all
    table = lines.select(
        F.lit("cdnow").alias("source"),
        parts[0].alias("customer_id"),
        parts[1].alias("day"),
        parts[2].cast("double").alias("quantity"),
        parts[3].cast("double").alias("amount_usd"),
    ).select(
        *_CUSTOMER,
        F.concat_ws("-", "day", F.row_number().over(of_day)).alias("purchase"),
        F.to_timestamp("day", "yyyyMMdd").alias("time"),
        *("quantity", "amount_usd"),
    )
    return Data(_tables(table), f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


def purchases_of_lake(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The purchases of `lake.silver.purchase` in its present snapshot; where `REPURCHASE_SOURCE` is set, those of that source alone.

    Raises BadData.
    """
    from pyspark.sql import functions as F

    try:
        [[snapshot]] = spark.sql("SELECT snapshot_id FROM lake.silver.purchase.refs WHERE name = 'main'").collect()
    except Exception as error:
        raise BadData(f"lake.silver.purchase: {in_a_line(error)}: run the DAG `curate` first") from None
    table = spark.read.option("snapshot-id", snapshot).table("lake.silver.purchase").where("subject IS NOT NULL")
    if source := settings.get(SOURCE):
        table = table.where(F.col("source") == source)
    named = {"customer_id": "subject", "purchase": "id", "time": "time"}
    numbers = [F.col(name).cast("double").alias(name) for name in ("quantity", "amount_usd")]
    known = table.select("source", *(F.col(theirs).alias(ours) for ours, theirs in named.items()), *numbers)
    return Data(_tables(known), f"lake.silver.purchase@{snapshot}")


def _tables(purchases: "DataFrame") -> Tables:
    """Each purchase twice: `events` are what is asked about, there an instant before the moment that they are scored; `purchases` are what
    is known of a customer from then on, so that purchases of one moment do not know of each other."""
    from pyspark.sql import functions as F

    an_instant = F.expr("INTERVAL 1 MICROSECOND")
    return {
        "events": purchases.withColumn(KNOWN_AT, F.col("time") - an_instant),
        "purchases": purchases.withColumn(KNOWN_AT, F.col("time")),
    }


class Within:
    """As of each purchase, from the customer's state before it. `horizon_days`: how long the customer has for the next one."""

    key: tuple[str, ...] = (*_CUSTOMER, "purchase")
    columns: tuple[str, ...] = FEATURES
    segment = "bought"

    def __init__(self, horizon_days: int = HORIZON_DAYS) -> None:
        self._horizon = f"INTERVAL {horizon_days} DAYS"

    def asked(self, tables: Tables) -> "DataFrame":
        """Each purchase, with what its event says."""
        from pyspark.sql import functions as F

        return tables["events"].select(*self.key, F.col("time").alias(AS_OF), "quantity", "amount_usd")

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """What `headrace.features` makes of the event and the state."""
        from pyspark.sql import types as T

        rows = states(tables["purchases"], asked)
        kept = [field for field in rows.schema if field.name not in {*FEATURES, *(STATE.names or ())}]
        made = [T.StructField(name, T.FloatType()) for name in FEATURES]
        return rows.mapInArrow(_described, T.StructType([*kept, *made, T.StructField(self.segment, T.StringType())]))

    def label(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """1 for who buys again within the horizon (later than at this very moment); unknown where the source's data end before it does."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        bought = tables["purchases"]
        after = Window.partitionBy(*_CUSTOMER).orderBy("time")
        following = (
            bought.select(*_CUSTOMER, "time").distinct().withColumn("_next", F.lead("time").over(after)).withColumnRenamed("time", AS_OF)
        )
        ends = bought.groupBy("source").agg(F.max(KNOWN_AT).alias("_end"))
        until = F.col(AS_OF) + F.expr(self._horizon)
        told = F.when(until <= F.col("_end"), F.coalesce(F.col("_next") <= until, F.lit(False)).cast("double"))
        rows = asked.join(following, [*_CUSTOMER, AS_OF], "left").join(F.broadcast(ends), "source")
        return rows.withColumn(LABEL, told).drop("_next", "_end")


def states(purchases: "DataFrame", asked: "DataFrame") -> "DataFrame":
    """`asked` with the columns of `headrace.features.STATE`: what was known of the customer before `as_of`. One pass in order of time."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    row, at = "_asked", "_at"
    asks = asked.select(*_CUSTOMER, F.struct(*asked.columns).alias(row), F.unix_micros(AS_OF).alias(at))
    told = purchases.select(*_CUSTOMER, F.unix_micros(KNOWN_AT).alias(at), F.struct("time", "quantity", "amount_usd").alias("_bought"))
    before = Window.partitionBy(*_CUSTOMER).orderBy(at).rangeBetween(Window.unboundedPreceding, -1)
    state = {
        "first_purchase_at": F.min("_bought.time"),
        "last_purchase_at": F.max("_bought.time"),
        "frequency": F.count("_bought.time"),
        "quantity_total": F.sum("_bought.quantity"),
        "monetary_total_usd": F.sum("_bought.amount_usd"),
    }
    run = told.unionByName(asks, allowMissingColumns=True)
    known = run.select(row, *(value.over(before).alias(name) for name, value in state.items())).where(F.col(row).isNotNull())
    return known.select(f"{row}.*", *state)


def _described(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    """The features of rows that have `as_of`, the event's numbers and the state."""
    import numpy as np
    import pyarrow as pa

    for batch in batches:
        quantity, amount_usd = (batch.column(name).to_numpy(zero_copy_only=False) for name in ("quantity", "amount_usd"))
        at = batch.column(AS_OF).cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        rows, _ = features(at, quantity, amount_usd, states_of(batch))
        frequency = rows[:, FEATURES.index("frequency")]
        bought = np.select([frequency == 0, frequency == 1], ["never before", "once before"], "more often")
        kept = [name for name in batch.schema.names if name not in {*FEATURES, *(STATE.names or ())}]
        made = [pa.array(column) for column in rows.T]
        yield pa.RecordBatch.from_arrays(
            [*(batch.column(name) for name in kept), *made, pa.array(bought.astype(object), pa.string())],
            names=[*kept, *FEATURES, Within.segment],
        )


Repurchase = Within()
