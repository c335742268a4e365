"""The Spark session of curation, and the lock that keeps two curations apart."""

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyspark
from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from dags.curation.options import LOCK, Options
from dags.curation.parallelism import Parallelism

_LOGGING = Path(__file__).parent / "log4j2.properties"
# A run is short: the second compiler would cost more than it gains.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xss4m", f"-Dlog4j2.configurationFile={_LOGGING}")


class Busy(Exception):
    """Another curation of this lake runs, and did not end in time."""


class NoSpark(Exception):
    """Spark cannot be reached where CURATION_MASTER says."""


class NoLake(Exception):
    """PostgreSQL, which holds the lake's catalog, cannot be reached."""


def start_jvm(of: Options) -> Any:
    """Spark's JVM without a Spark in it yet: enough to ask the lake how much there is to do. Returns its classes.

    Nothing secret is among what it is started with, which stands on its command line.
    """
    if of.env.get("JAVA17_HOME"):
        os.environ["JAVA_HOME"] = of.env["JAVA17_HOME"]
    if of.local:
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    scratch = _scratch(of.env)
    scratch.mkdir(parents=True, exist_ok=True)
    jars = _jars(of)
    start = {
        **of.conf,
        "spark.master": "local[1]" if of.local else of.master,
        "spark.app.name": "headrace-curation",
        "spark.driver.memory": of.driver_memory,
        "spark.driver.extraClassPath": ":".join(jars),
        "spark.driver.extraJavaOptions": " ".join((*_JVM, f"-Djava.io.tmpdir={scratch}", *_class_archive(scratch, ":".join(jars)))),
    }
    conf = SparkConf(loadDefaults=False)
    for key, value in start.items():
        conf.set(key, value)
    SparkContext._ensure_initialized(conf=conf)
    return SparkContext._jvm


def open_session(of: Options, parallel: Parallelism) -> SparkSession:
    """A Spark of that parallelism, in the JVM that was started. Raises NoSpark where the cluster cannot be reached."""
    scratch = _scratch(of.env)
    start = {
        "spark.master": f"local[{parallel.cores}]" if of.local else of.master,
        "spark.default.parallelism": str(parallel.partitions),
        "spark.sql.shuffle.partitions": str(parallel.partitions),
        "spark.sql.files.maxPartitionBytes": str(parallel.split_bytes),
        "spark.driver.bindAddress": of.driver_host,
        "spark.driver.host": of.driver_host,
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "unused"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.caseSensitive": "true",  # properties of JSON objects are
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.catalogImplementation": "in-memory",
    }
    if not of.local:
        start |= {
            "spark.jars": ",".join(_jars(of)),
            "spark.cores.max": str(parallel.cores),  # standalone's way to say how many executors
            "spark.executor.instances": str(parallel.executors),
            "spark.executor.cores": str(parallel.executor_cores),
            "spark.executor.memory": of.executor_memory,
        }
    builder = SparkSession.builder
    for key, value in start.items():
        builder = builder.config(key, value)
    try:
        spark = builder.getOrCreate()
    except Py4JJavaError as error:
        raise NoSpark(f"no Spark at CURATION_MASTER={of.master}: {error.java_exception.getMessage()}") from None
    for key, value in {"": "org.apache.iceberg.spark.SparkCatalog", ".type": "jdbc", **catalog_properties(of.env)}.items():
        spark.conf.set(f"spark.sql.catalog.lake{key}", value)
    return spark


def catalog_properties(env: Mapping[str, str]) -> dict[str, str]:
    """The properties of the lake's Iceberg catalog, each name with a dot before it."""
    url, user, password = jdbc(env["LAKE_CATALOG_URL"])
    return {
        ".uri": url,
        ".jdbc.user": user,
        ".jdbc.password": password,
        ".jdbc.schema-version": "V1",
        ".warehouse": env["LAKE_WAREHOUSE"],
        ".io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        ".s3.endpoint": env["S3_ENDPOINT"],
        ".s3.path-style-access": "true",
        ".s3.access-key-id": env["S3_ACCESS_KEY"],
        ".s3.secret-access-key": env["S3_SECRET_KEY"],
        ".client.region": env["S3_REGION"],
    }


def close_session(spark: SparkSession) -> None:
    """End Spark, and wait for its JVM: the first one writes the archive of classes that spares later ones a third of their work."""
    gateway: Any = SparkContext._gateway
    spark.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    try:
        whole = gateway.proc.wait(timeout=300) == 0
    except subprocess.TimeoutExpired:
        gateway.proc.kill()
        whole = False
    for fresh in _scratch(os.environ).glob(f"*.jsa.{os.getpid()}.new"):
        if whole:
            for old in fresh.parent.glob("*.jsa"):  # of other versions
                old.unlink()
            fresh.rename(fresh.with_suffix("").with_suffix(""))
        else:
            fresh.unlink()


def _class_archive(scratch: Path, jars: str) -> list[str]:
    """Options of the JVM that use the archive of parsed classes which an earlier run left, or leave one."""
    made_of = f"{jars} {pyspark.__file__} {pyspark.__version__} {os.environ.get('JAVA_HOME')}"
    archive = scratch / f"classes-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.jsa"
    quiet = "-Xlog:cds=off,cds+dynamic=off,class+path=off"
    if archive.is_file():
        for left in scratch.glob("*.new"):  # by a run that was killed
            left.unlink(missing_ok=True)
        return [f"-XX:SharedArchiveFile={archive}", quiet]
    return [f"-XX:ArchiveClassesAtExit={archive}.{os.getpid()}.new", quiet]


def _jars(of: Options) -> list[str]:
    return sorted(str(jar.absolute()) for jar in Path(of.env["SPARK_JARS"]).glob("*.jar"))


def _scratch(env: Mapping[str, str]) -> Path:
    return (
        Path(env["STATE_DIR"], "data", "curation").absolute() if env.get("STATE_DIR") else Path(tempfile.gettempdir(), "headrace-curation")
    )


def jdbc(url: str) -> tuple[str, str, str]:
    """`postgresql://user:password@host:port/database` as (JDBC address, user, password)."""
    parts = urlsplit(url)
    address = f"jdbc:postgresql://{parts.hostname}:{parts.port or 5432}{parts.path}"
    return address, unquote(parts.username or ""), unquote(parts.password or "")


@contextmanager
def alone(jvm: Any, env: Mapping[str, str], wait: float = 300, lock: str = LOCK) -> Iterator[None]:
    """Hold a lock (that of the lake's curation), waiting up to `wait` seconds for it. Raises Busy or NoLake.

    Appends to Iceberg never conflict, so two curations at once would write the same rows twice. PostgreSQL drops the lock with the
    connection, so a killed process leaves none behind.
    """
    try:
        connection = jvm.java.sql.DriverManager.getConnection(*jdbc(env["LAKE_CATALOG_URL"]))
    except Py4JJavaError as error:
        raise NoLake(f"the lake's catalog (LAKE_CATALOG_URL): {error.java_exception.getMessage()}") from None
    try:
        deadline = time.monotonic() + wait
        while not _try_lock(connection, lock):
            if time.monotonic() > deadline:
                raise Busy(f"another run has held {lock!r} for {wait:.0f} seconds: try again when it has ended")
            time.sleep(2)
        yield
    finally:
        connection.close()


def _try_lock(connection: Any, lock: str) -> bool:
    statement = connection.createStatement()
    result = statement.executeQuery(f"SELECT pg_try_advisory_lock(hashtext('{lock}'))")
    result.next()
    held = bool(result.getBoolean(1))
    statement.close()
    return held
