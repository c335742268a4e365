"""Mistakes, planted: features that know the future, a model that learns nothing, data that drift. `make demo-ml` and the tests show that
each is caught."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from ml.contract import KNOWN_AT, Data, Tables
from ml.examples.churn import _Churn, purchases
from ml.examples.flights import _Flights
from ml.examples.recommender import _Recommender
from ml.examples.repurchase import Within

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


class _Lifetime(_Churn):
    """What a customer spends in all: also what they have not spent yet."""

    columns = (*_Churn.columns, "spent_in_all")

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """With the mistake."""
        from pyspark.sql import functions as F

        spent = tables["purchases"].groupBy(*self.key).agg(F.sum("amount").alias("spent_in_all"))
        return super().features(tables, asked).join(spent, [*self.key])


class _OnTheDay(_Churn):
    """Purchases count from the beginning of their day, and not from when they are known."""

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """With the mistake."""
        from pyspark.sql import functions as F

        early = tables["purchases"].withColumn(KNOWN_AT, F.col("time") - F.expr("INTERVAL 7 DAYS"))
        return super().features({**tables, "purchases": early}, asked)


class _BySchedule(_Flights):
    """A departure's delay counts from when the flight should have left: of flights that wait at the gate, it is not known then."""

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """With the mistake."""
        from pyspark.sql import functions as F

        scheduled = F.col(KNOWN_AT) - F.make_dt_interval(mins=F.col("dep_delay").cast("int"))
        return super().features({**tables, "departures": tables["departures"].withColumn(KNOWN_AT, scheduled)}, asked)


class _WeekOfSales(_Recommender):
    """What is popular is what sells in the week that is asked for."""

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """With the mistake."""
        from pyspark.sql import functions as F

        early = tables["purchases"].withColumn(KNOWN_AT, F.col(KNOWN_AT) - F.expr("INTERVAL 7 DAYS"))
        return super().features({**tables, "purchases": early}, asked)


class _Worse:
    """Learns next to nothing."""

    def space(self, trial: Any) -> dict[str, Any]:
        """One tree or two."""
        return {"max_iter": trial.suggest_int("max_iter", 1, 2)}

    def build(self, parameters: Mapping[str, Any], seed: int) -> Any:
        """Of one question each."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(**parameters, max_leaf_nodes=2, learning_rate=0.01, early_stopping=False, random_state=seed)


def in_cents(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """The purchases, from a sender that has begun to tell amounts in cents."""
    from pyspark.sql import functions as F

    data = purchases(spark, settings)
    return Data({"purchases": data.tables["purchases"].withColumn("amount", F.col("amount") * 100)}, data.snapshot)


class Bought(NamedTuple):
    """A purchase: a line of CDNOW's file."""

    customer: str
    day: date
    quantity: int
    amount: float


_REGULAR, _AWAY, _OTHER_MONEY = 7, timedelta(days=30), 2.5


def turned(purchases: Sequence[Bought], since: date) -> list[Bought]:
    """The purchases (by day) of a shop whose customers change on a day: regulars stay away, and amounts are in other money.

    From `since` on, who has bought on seven days before comes again after 30 days at the earliest: what they bought sooner is not there.
    What was before `since` is as it was.
    """
    days: dict[str, list[date]] = {}
    kept = []
    for each in purchases:
        before = days.setdefault(each.customer, [])
        earlier = before[:-1] if before and before[-1] == each.day else before
        changed = each.day >= since
        if changed and len(earlier) >= _REGULAR and max(since, each.day - _AWAY + timedelta(days=1)) <= earlier[-1]:
            continue
        if earlier is before:
            before.append(each.day)
        kept.append(each._replace(amount=round(each.amount * _OTHER_MONEY, 2)) if changed else each)
    return kept


Soon = Within(21)  # three weeks: what a model says comes true, or does not, soon enough to be shown
Lifetime, OnTheDay, BySchedule, WeekOfSales, Worse = _Lifetime(), _OnTheDay(), _BySchedule(), _WeekOfSales(), _Worse()
