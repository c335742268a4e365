"""Expectations of whole tables, and the results of all: what goes to lake.gold.quality_results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dags.curation.expectations import Expectation
from dags.curation.plan import Table

_DAY = timedelta(days=1)
_ENOUGH = 100  # events of a day, below which a day is not compared with it


@dataclass(frozen=True)
class Result:
    """How many (rows, values; of freshness and volume: rows, and 1 where it does not hold) were checked, and how many failed."""

    of: Expectation
    checked: int
    failed: int

    def __str__(self) -> str:
        """In words."""
        return f"{self.of.type}.{self.of}: {self.failed} of {self.checked} ({self.of.level})"

    def row(self, run_id: str, at: datetime) -> dict[str, Any]:
        """As a row of the table."""
        names = {"type": self.of.type, "expectation": self.of.name, "check": self.of.check, "level": self.of.level}
        return {"run_id": run_id, "at": at.isoformat(), **names, "checked": self.checked, "failed": self.failed}


def of_rows(expected: Mapping[str, Sequence[Expectation]], unmet: Mapping[tuple[str, tuple[str, ...]], int]) -> Iterator[Result]:
    """The results of the rows of a run. `unmet`: (type, names of what a row breaks) -> number of rows. None for a type without rows."""
    for type, expectations in expected.items():
        of_type = {names: number for (other, names), number in unmet.items() if other == type}
        if of_type:
            for one in expectations:
                if one.of_rows:
                    yield Result(one, sum(of_type.values()), sum(number for names, number in of_type.items() if one.name in names))


def of_tables(
    spark: SparkSession, tables: Mapping[str, Table], expected: Mapping[str, Sequence[Expectation]], at: datetime
) -> list[Result]:
    """The results of all expectations of tables. `tables`: by event type.

    Days and hours count from `received_at` back from `at`: its statistics spare the files of earlier, so the cost follows what is new.
    """
    found = []
    for type, expectations in expected.items():
        of_table = [one for one in expectations if not one.of_rows]
        single = [one for one in of_table if one.check != "reference"]
        if single:
            rows = _rows(spark, tables[type], at, max(_reach(one) for one in single))
            pairs = [pair for one in single for pair in _counts(one, tables[type], at)]
            values = list(rows.select(*(each.alias(f"_{n}") for n, each in enumerate(pairs))).first() or ())
            found += [_result(one, *values[2 * n : 2 * n + 2]) for n, one in enumerate(single)]
        found += [_reference(spark, tables, one, at) for one in of_table if one.check == "reference"]
    return found


def _reach(one: Expectation) -> timedelta:
    return {"fresh": timedelta(hours=one.hours), "volume": 8 * _DAY}.get(one.check, timedelta(days=one.days))


def _counts(one: Expectation, table: Table, at: datetime) -> tuple[Column, Column]:
    if one.check == "unique":
        value = F.when(_since(at - _reach(one)), _property(table, one.of))
        return F.count(value), F.count_distinct(value)
    if one.check == "fresh":
        return F.count("*"), F.count_if(_since(at - _reach(one)))
    return F.count_if(_since(at - _DAY)), F.count_if(_since(at - 8 * _DAY) & ~_since(at - 7 * _DAY))


def _result(one: Expectation, first: int, second: int) -> Result:
    if one.check == "unique":
        return Result(one, first, first - second)
    if one.check == "fresh":
        return Result(one, first, int(second == 0))
    holds = second < _ENOUGH or (one.min or 0) * second <= first <= (one.max if one.max is not None else float("inf")) * second
    return Result(one, first, int(not holds))


def _reference(spark: SparkSession, tables: Mapping[str, Table], one: Expectation, at: datetime) -> Result:
    other, _, name = one.to.partition(".")
    there = _rows(spark, tables[other], at, _reach(one)).select(_property(tables[other], name).alias("value")).distinct()
    here = _rows(spark, tables[one.type], at, _reach(one)).select(_property(tables[one.type], one.of).alias("value")).dropna()
    counted = here.join(there.withColumn("known", F.lit(True)), "value", "left").select(F.count("*"), F.count_if(F.col("known").isNull()))
    checked, failed = counted.first() or (0, 0)
    return Result(one, checked, failed)


def _rows(spark: SparkSession, table: Table, at: datetime, reach: timedelta) -> DataFrame:
    return spark.table(f"lake.silver.{table.name}").where(_since(at - reach))


def _since(moment: datetime) -> Column:
    return F.col("received_at") >= F.lit(moment.isoformat()).cast("timestamp")


def _property(table: Table, name: str) -> Column:
    """The property's value as text, in whichever column its version has it."""
    return F.coalesce(*(F.col(f"`{each.column}`").cast("string") for each in table.columns if each.property == name))


def unmet(results: Iterable[Result]) -> list[Result]:
    """Those that do not hold."""
    return [each for each in results if each.failed]
