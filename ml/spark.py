"""The Spark of the models' work, in one process, with the lake where its settings are there."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml.engines import JARS, JAVA, class_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_ROOT = Path(__file__).resolve().parent.parent
_LAKE = "spark.sql.catalog.lake"


@contextmanager
def session(
    env: Mapping[str, str], cores: int, lake: bool = False, conf: Mapping[str, str] | None = None, brief: bool = False
) -> Iterator["SparkSession"]:
    """A Spark on `cores` of this machine, ended with the block. Times are UTC. `lake`: with the catalog `lake` of the settings.

    `brief`: for many queries of few rows each, where the JVM's second compiler costs more than it gains.
    """
    from pyspark.sql import SparkSession

    if env.get(JAVA):
        os.environ["JAVA_HOME"] = env[JAVA]
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PYTHONPATH"] = os.pathsep.join((str(_ROOT), *filter(None, (os.environ.get("PYTHONPATH"),))))  # workers import `ml` too
    os.environ["TZ"] = "UTC"  # Spark gives moments to Python in the zone of the process
    time.tzset()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    scratch = (
        Path(env["STATE_DIR"], "data", "ml", "spark").absolute() if env.get("STATE_DIR") else Path(tempfile.gettempdir(), "headrace-ml")
    )
    scratch.mkdir(parents=True, exist_ok=True)
    settings = {
        "spark.master": f"local[{cores}]",
        "spark.app.name": "headrace-ml",
        "spark.driver.memory": env.get("ML_SPARK_MEMORY") or "2g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraJavaOptions": f"-XX:+UseSerialGC -Xss4m -Djava.io.tmpdir={scratch}{' -XX:TieredStopAtLevel=1' * brief}",
        "spark.default.parallelism": str(cores * 2),
        "spark.sql.shuffle.partitions": str(cores * 2),
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "unused"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # with its time zone: others than Spark read it too
        "spark.sql.catalogImplementation": "in-memory",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **_lake(env, lake),
        **(conf or {}),
    }
    builder = SparkSession.builder
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        if lake:
            from dags.curation.session import catalog_properties

            for key, value in catalog_properties(env).items():  # among them a password, which the command line does not have
                spark.conf.set(f"{_LAKE}{key}", value)
        yield spark
    finally:
        spark.stop()


def _lake(env: Mapping[str, str], wanted: bool) -> dict[str, str]:
    """What Spark has to know of Iceberg before it starts. Raises BadData."""
    if not wanted and not env.get(JARS):
        return {}
    jars = class_path(env, JARS)
    extensions = {"spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions"}
    catalog = {_LAKE: "org.apache.iceberg.spark.SparkCatalog", f"{_LAKE}.type": "jdbc"} if wanted else {}
    return {"spark.driver.extraClassPath": jars, **extensions, **catalog}
