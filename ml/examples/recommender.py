"""What next: which products a customer of the shop will buy in the next week, as of each Monday."""

import hashlib
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Final

from headrace.errors import in_a_line
from ml.contract import AS_OF, KNOWN_AT, LABEL, WANTED, Data, Tables
from ml.errors import BadData

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FILE = "ML_SHOP_FILE"
WEEKS: Final = 8  # of what a customer did that count
POPULAR_WEEKS: Final = 4  # of what everybody bought that count
CANDIDATES: Final = 8  # of the most popular products, and as many of those that go with what a customer knows
_QUIET = "INTERVAL 6 HOURS"  # longer than nobody comes for: a week is over once somebody came after it, or so long before its end
_CUSTOMER, _PRODUCT = ("source", "customer_id"), ("source", "product")  # ids mean something within one source
_TYPES = ("page_view", "add_to_cart", "purchase", "alias")
_SCHEMA = (
    "type STRING, source STRING, subject STRING, time TIMESTAMP, data STRUCT<path: STRING, product_id: STRING, price_usd: DOUBLE,"
    " previous_id: STRING, products: ARRAY<STRUCT<product_id: STRING, price_usd: DOUBLE>>>"
)


def events_of_file(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The shop of a file with a CloudEvent in each line, as `python -m producers.simulate.history` writes it. Raises BadData."""
    path = Path(settings.get(FILE, ""))
    if not path.is_file():
        raise BadData(f"{path}: no such file (setting {FILE}; `python -m producers.simulate.history {path}` writes it)")
    events = spark.read.schema(_SCHEMA).json(str(path.resolve()))
    of = {type: events.where(events["type"] == type).select("source", "subject", "time", "data.*") for type in _TYPES}
    with path.open("rb") as file:
        return Data(_shop(of, settings), f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def events_of_lake(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The shop in `lake.silver.*` in the tables' present snapshots, each event known from its `time` on. Raises BadData."""
    of, snapshots = {}, []
    for name in _TYPES:
        try:
            [[snapshot]] = spark.sql(f"SELECT snapshot_id FROM lake.silver.{name}.refs WHERE name = 'main'").collect()
        except Exception as error:
            raise BadData(f"lake.silver.{name}: {in_a_line(error)}: run the DAG `curate` first") from None
        of[name] = spark.read.option("snapshot-id", snapshot).table(f"lake.silver.{name}")
        snapshots.append(f"{name}@{snapshot}")
    return Data(_shop(of, settings), f"lake.silver: {', '.join(snapshots)}")


def _shop(of: Mapping[str, "DataFrame"], settings: Mapping[str, str]) -> Tables:
    """Who looked at, wanted and bought what (`who` may be a visitor without a name yet), and who turned out to be whom. Where `SHOP_SOURCE`
    is set, of that source alone."""
    from pyspark.sql import functions as F

    source = settings.get("SHOP_SOURCE")
    told = {name: (table.where(F.col("source") == source) if source else table) for name, table in of.items()}
    known, who = F.col("time").alias(KNOWN_AT), F.col("subject").alias("who")
    page = F.regexp_extract("path", "^/p/([^/?#]+)", 1)
    line = told["purchase"].select("source", who, known, F.explode("products").alias("line"))
    tables = {
        "views": told["page_view"].where(page != "").select("source", who, page.alias("product"), known),
        "carts": told["add_to_cart"].select("source", who, F.col("product_id").alias("product"), F.col("price_usd").alias("price"), known),
        "purchases": line.select(
            "source", "who", F.col("line.product_id").alias("product"), F.col("line.price_usd").alias("price"), KNOWN_AT
        ),
        "aliases": told["alias"].select("source", F.col("subject").alias("customer_id"), F.col("previous_id").alias("who"), known),
    }
    return {name: table.persist() for name, table in tables.items()}


def _weeks_after(number: int) -> "Column":
    """The next Mondays after a fact was known, so many: `known_at` is before each of them, as features have to be."""
    from pyspark.sql import functions as F

    first = f"date_trunc('week', {KNOWN_AT}) + INTERVAL 7 DAYS"
    return F.explode(F.expr(f"sequence({first}, {first} + INTERVAL {7 * (number - 1)} DAYS, INTERVAL 7 DAYS)")).alias(AS_OF)


def _deeds(tables: Tables) -> "DataFrame":
    """What customers did with products, known when both the deed and the customer were: a visitor says late who they are."""
    from pyspark.sql import functions as F

    def of(name: str, deed: str, price: "Column") -> "DataFrame":
        return tables[name].select("source", "who", "product", price.cast("double").alias("price"), KNOWN_AT, F.lit(deed).alias("deed"))

    deeds = of("views", "viewed", F.lit(None)).unionByName(of("carts", "carted", F.col("price")))
    first = F.min_by("customer_id", F.struct(KNOWN_AT, "customer_id")).alias("customer_id")
    names = tables["aliases"].groupBy("source", "who").agg(first, F.min(KNOWN_AT).alias("_named"))
    named = deeds.join(names, ["source", "who"]).withColumn(KNOWN_AT, F.greatest(KNOWN_AT, "_named")).drop("who", "_named")
    bought = of("purchases", "bought", F.col("price")).withColumnRenamed("who", "customer_id")
    return named.unionByName(bought)


def _computed(table: "DataFrame") -> "DataFrame":
    """The same rows without the way to them: used many times over, planning and compiling it anew each time takes longer than they."""
    return table.localCheckpoint()


class _Recommender:
    """As of each Monday, of everyone who did anything in the last weeks: a row for each product that may come into question."""

    key: tuple[str, ...] = (*_CUSTOMER, "product")
    rank_by: tuple[str, ...] = _CUSTOMER
    columns: tuple[str, ...] = (
        *("popularity", "popularity_1w", "trend"),
        *("viewed", "carted", "bought", "touched_days"),
        *("affinity", "affinity_share"),
        *("purchases", "known_products", "recency_days", "price", "price_to_usual"),
    )
    segment = "customers"

    def asked(self, tables: Tables) -> "DataFrame":
        """The candidates: what is popular, what the customer knows, and what goes with that."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        end = tables["views"].agg(F.max(KNOWN_AT).alias("_end"))
        knows = self._knows(tables).crossJoin(F.broadcast(end)).where(F.col(AS_OF) <= F.col("_end") + F.expr(_QUIET)).drop("_end")
        customers = knows.select(*_CUSTOMER, AS_OF).distinct()
        by_count = Window.partitionBy("source", AS_OF).orderBy(F.desc("popularity"), "product")
        popular = self._popular(tables).withColumn("_rank", F.row_number().over(by_count)).where(F.col("_rank") <= CANDIDATES)
        by_affinity = Window.partitionBy(*_CUSTOMER, AS_OF).orderBy(F.desc("affinity"), "product")
        fitting = self._affinity(knows).withColumn("_rank", F.row_number().over(by_affinity)).where(F.col("_rank") <= CANDIDATES)
        parts = [customers.join(F.broadcast(popular), ["source", AS_OF]), knows, fitting]
        return reduce(lambda one, other: one.unionByName(other), (part.select(*self.key, AS_OF) for part in parts)).distinct()

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """How popular a product is, what the customer did with it, how well it goes with what they know, and what it costs beside that."""
        from pyspark.sql import functions as F

        asked = _computed(asked)
        moments = F.broadcast(asked.select(AS_OF).distinct())  # scoring and the leak check ask for few
        knows = self._knows(tables).join(moments, AS_OF)
        popular = self._popular(tables).join(moments, AS_OF)
        rows = asked.join(F.broadcast(popular), [*_PRODUCT, AS_OF], "left").join(knows.drop("usual"), [*self.key, AS_OF], "left")
        rows = rows.join(self._affinity(knows), [*self.key, AS_OF], "left").join(self._customers(knows), [*_CUSTOMER, AS_OF], "left")
        counts = ("popularity", "popularity_1w", "viewed", "carted", "bought", "affinity", "affinity_share")
        rows = rows.fillna(0.0, list(counts))
        days = (F.unix_seconds(AS_OF) - F.unix_seconds("_last")) / 86_400
        return rows.withColumns(
            {
                "trend": F.col("popularity_1w") * POPULAR_WEEKS / F.greatest(F.col("popularity"), F.lit(1.0)),
                "touched_days": days,
                "price_to_usual": F.col("price") / F.col("usual"),
                self.segment: F.when(F.col("purchases") == 0, "never bought").when(F.col("purchases") <= 3, "few").otherwise("many"),
            }
        ).select(*asked.columns, *self.columns, self.segment)

    def label(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """1 for a product that the customer buys in the 7 days from `as_of` on; unknown where the data end before these do.

        `wanted` is how many products they buy then in all: what is not among the candidates cannot be recommended.
        """
        from pyspark.sql import functions as F

        bought = tables["purchases"].select(
            "source", F.col("who").alias("customer_id"), "product", F.date_trunc("week", KNOWN_AT).alias(AS_OF)
        ).distinct()  # fmt: skip
        every = bought.groupBy(*_CUSTOMER, AS_OF).agg(F.count("*").alias("_wanted"))
        end = tables["views"].agg(F.max(KNOWN_AT).alias("_end"))
        rows = asked.join(bought.withColumn("_bought", F.lit(1.0)), [*self.key, AS_OF], "left").join(every, [*_CUSTOMER, AS_OF], "left")
        known = F.col(AS_OF) + F.expr("INTERVAL 7 DAYS") <= F.col("_end") + F.expr(_QUIET)
        told = {LABEL: F.when(known, F.coalesce("_bought", F.lit(0.0))), WANTED: F.coalesce("_wanted", F.lit(0)).cast("double")}
        return rows.crossJoin(F.broadcast(end)).withColumns(told).drop("_bought", "_wanted", "_end")

    def _popular(self, tables: Tables) -> "DataFrame":
        """How often each product was bought in the weeks before, and in the last one; and what it cost last."""
        from pyspark.sql import functions as F

        fresh = F.col(KNOWN_AT) >= F.col(AS_OF) - F.expr("INTERVAL 7 DAYS")
        sold = tables["purchases"].select(*_PRODUCT, "price", KNOWN_AT, _weeks_after(POPULAR_WEEKS)).groupBy(*_PRODUCT, AS_OF)
        return sold.agg(
            F.count("*").cast("double").alias("popularity"),
            F.count_if(fresh).cast("double").alias("popularity_1w"),
            F.max_by("price", F.struct(KNOWN_AT, "price")).cast("double").alias("price"),
        )

    def _knows(self, tables: Tables) -> "DataFrame":
        """What each customer did with each product in the weeks before."""
        from pyspark.sql import functions as F

        grouped = _deeds(tables).select("*", _weeks_after(WEEKS)).groupBy(*self.key, AS_OF)
        often = [F.count_if(F.col("deed") == deed).cast("double").alias(deed) for deed in ("viewed", "carted", "bought")]
        return _computed(grouped.agg(*often, F.max(KNOWN_AT).alias("_last"), F.avg("price").alias("usual")))

    def _customers(self, knows: "DataFrame") -> "DataFrame":
        """What each customer is like: how much they bought, how many products they know, when they were here, what they usually look at."""
        from pyspark.sql import functions as F

        return knows.groupBy(*_CUSTOMER, AS_OF).agg(
            F.sum("bought").alias("purchases"),
            F.count("*").cast("double").alias("known_products"),
            ((F.unix_seconds(F.first(AS_OF)) - F.unix_seconds(F.max("_last"))) / 86_400).alias("recency_days"),
            F.avg("usual").alias("usual"),
        )

    def _affinity(self, knows: "DataFrame") -> "DataFrame":
        """How well a product goes with what a customer knows: of those who wanted or bought that, the share who wanted or bought this too.
        The sum over what they know, and the same as a share of all products'."""
        from pyspark.sql import Window
        from pyspark.sql import functions as F

        wanted = knows.where(F.col("carted") + F.col("bought") > 0).select(*_CUSTOMER, AS_OF, "product")
        other = wanted.withColumnRenamed("product", "other")
        each = other.groupBy("source", "other", AS_OF).agg(F.count("*").alias("_each"))
        both = (
            wanted.join(other, [*_CUSTOMER, AS_OF])
            .where("product <> other")
            .groupBy(*_PRODUCT, "other", AS_OF)
            .agg(F.count("*").alias("_both"))
        )
        pairs = both.join(each, ["source", "other", AS_OF]).select(
            *_PRODUCT, "other", AS_OF, (F.col("_both") / F.col("_each")).alias("_share")
        )
        known = knows.select(*_CUSTOMER, AS_OF, F.col("product").alias("other"))
        found = known.join(pairs, ["source", "other", AS_OF]).groupBy(*self.key, AS_OF).agg(F.round(F.sum("_share"), 9).alias("affinity"))
        whole = F.sum("affinity").over(Window.partitionBy(*_CUSTOMER, AS_OF))
        return found.withColumn("affinity_share", F.col("affinity") / whole)


Recommender = _Recommender()
