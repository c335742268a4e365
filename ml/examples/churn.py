"""Churn: which customers of CDNOW's shop will buy nothing within 90 days, as of the first of each month."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.errors import in_a_line
from ml.contract import AS_OF, KNOWN_AT, LABEL, Data, Tables
from ml.errors import BadData
from ml.rolling import past

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

HORIZON_DAYS: Final = 90
_CUSTOMER: Final = ("source", "customer_id")  # the names that gold has, by which an erasure finds a person's scores
FILE = "ENRICHMENT_API_DATA_FILE"
_DAY = 86_400


def purchases(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The purchases of a file in CDNOW's form (a heading; customer, yyyymmdd, items, dollars). A purchase is known from the next day on.

    Raises BadData.
    """
    from pyspark.sql import functions as F

    path = Path(settings.get(FILE, ""))
    if not path.is_file():
        raise BadData(f"{path}: no such file (setting {FILE}; `make up` fetches it)")
    parts = F.split(F.trim("value"), r"\s+")
    day = F.to_timestamp(parts[1], "yyyyMMdd")
    lines = spark.read.text(str(path.resolve())).where(F.trim("value").rlike(r"^\d"))
    table = lines.select(
        F.lit("cdnow").alias("source"),
        parts[0].alias("customer_id"),
        day.alias("time"),
        parts[2].cast("double").alias("quantity"),
        parts[3].cast("double").alias("amount"),
        (day + F.expr("INTERVAL 1 DAY - INTERVAL 1 MICROSECOND")).alias(KNOWN_AT),
    )
    return Data({"purchases": table}, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


def purchases_of_lake(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The purchases of `lake.silver.purchase` in its present snapshot, each known from its `time` on; where `CHURN_SOURCE` is set,
    those of that source alone. Raises BadData."""
    from pyspark.sql import functions as F

    try:
        [[snapshot]] = spark.sql("SELECT snapshot_id FROM lake.silver.purchase.refs WHERE name = 'main'").collect()
    except Exception as error:
        raise BadData(f"lake.silver.purchase: {in_a_line(error)}: run the DAG `curate` first") from None
    table = spark.read.option("snapshot-id", snapshot).table("lake.silver.purchase")
    if source := settings.get("CHURN_SOURCE"):
        table = table.where(F.col("source") == source)
    known = table.select(
        "source",
        F.col("subject").alias("customer_id"),
        "time",
        "quantity",
        F.col("amount_usd").alias("amount"),
        F.col("time").alias(KNOWN_AT),
    )
    return Data({"purchases": known}, f"lake.silver.purchase@{snapshot}")


class _Churn:
    """As of the first of each month, of everyone who has bought before."""

    key: tuple[str, ...] = _CUSTOMER
    columns: tuple[str, ...] = (
        *(
            "recency_days",
            "tenure_days",
            "frequency",
            "mean_gap_days",
            "recency_in_gaps",
            "purchases_30d",
            "purchases_90d",
            "purchases_180d",
        ),
        *("mean_quantity", "mean_amount", "last_amount", "amount_90d"),
        *("log_recency", "log_tenure", "log_frequency", "log_gap", "log_amount"),  # for what is linear
    )
    segment = "bought"

    def asked(self, tables: Tables) -> "DataFrame":
        """Each customer at each first of a month after their first purchase, from the fourth month of the data to the one after them."""
        from pyspark.sql import functions as F

        bought = tables["purchases"]
        span = bought.agg(F.min("time").alias("first"), F.max(KNOWN_AT).alias("last"))
        month = "date_trunc('month', first)"
        months = span.select(
            F.explode(F.expr(f"sequence({month} + INTERVAL 3 MONTHS, last + INTERVAL 1 MONTH, INTERVAL 1 MONTH)")).alias(AS_OF)
        )
        customers = bought.groupBy(*_CUSTOMER).agg(F.min(KNOWN_AT).alias("_known"))
        return customers.crossJoin(F.broadcast(months)).where(F.col("_known") < F.col(AS_OF)).select(*_CUSTOMER, AS_OF)

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """When, how often and for how much the customer has bought. Purchases of one day are one."""
        from pyspark.sql import functions as F

        def days(later: str, earlier: str) -> "Column":
            return (F.unix_seconds(later) - F.unix_seconds(earlier)) / _DAY

        def within(number: int, value: "Column | int") -> "Column":
            return F.sum(F.when(days(AS_OF, "time") <= number, value).otherwise(0)).cast("double")

        daily = (
            tables["purchases"]
            .groupBy(*_CUSTOMER, "time", KNOWN_AT)
            .agg(F.sum("quantity").alias("quantity"), F.sum("amount").alias("amount"))
        )
        seen = past(asked, daily, self.key).groupBy(*self.key, AS_OF)
        told = seen.agg(
            F.max("time").alias("_last"),
            F.min("time").alias("_first"),
            F.count("*").cast("double").alias("frequency"),
            within(30, 1).alias("purchases_30d"),
            within(90, 1).alias("purchases_90d"),
            within(180, 1).alias("purchases_180d"),
            F.avg("quantity").alias("mean_quantity"),
            F.avg("amount").alias("mean_amount"),
            F.max_by("amount", "time").alias("last_amount"),
            within(90, F.col("amount")).alias("amount_90d"),
        )
        described = told.withColumns({"recency_days": days(AS_OF, "_last"), "tenure_days": days(AS_OF, "_first")})
        gap = F.when(F.col("frequency") > 1, days("_last", "_first") / (F.col("frequency") - 1))
        bought = F.when(F.col("frequency") == 1, "once").when(F.col("frequency") <= 3, "2 or 3 times").otherwise("4 times or more")
        of = {"recency": "recency_days", "tenure": "tenure_days", "frequency": "frequency", "gap": "mean_gap_days", "amount": "mean_amount"}
        ready = described.withColumn("mean_gap_days", gap).withColumns(
            {
                "recency_in_gaps": F.col("recency_days") / F.col("mean_gap_days"),
                self.segment: bought,
                **{f"log_{name}": F.log1p(column) for name, column in of.items()},
            }
        )
        return asked.join(ready.drop("_last", "_first"), [*self.key, AS_OF])

    def label(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """1 for who buys nothing in the 90 days from `as_of` on; unknown where the data end before these do."""
        from pyspark.sql import functions as F

        bought = tables["purchases"]
        end = bought.agg(F.max(KNOWN_AT).alias("_end"))
        horizon = F.expr(f"INTERVAL {HORIZON_DAYS} DAYS")
        after = bought.select(*_CUSTOMER, F.col("time").alias("_time"))
        inside = (F.col("_time") >= F.col(AS_OF)) & (F.col("_time") < F.col(AS_OF) + horizon)
        again = asked.join(after, [*_CUSTOMER]).where(inside).select(*_CUSTOMER, AS_OF).distinct().withColumn("_again", F.lit(True))
        known = F.col(AS_OF) + horizon <= F.col("_end") + F.expr("INTERVAL 1 DAY")
        told = F.when(known, F.when(F.col("_again"), 0.0).otherwise(1.0))
        return asked.join(again, [*_CUSTOMER, AS_OF], "left").crossJoin(F.broadcast(end)).withColumn(LABEL, told).drop("_again", "_end")


if TYPE_CHECKING:
    from pyspark.sql import Column

Churn = _Churn()
