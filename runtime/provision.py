"""What servers must have before services work on them, made where it is missing: topics, the bucket, databases, the lake's catalog.

`python -m runtime.provision <what>` does one of them by the settings in the environment: the one-shot services of docker-compose.yml.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import minio
import psycopg2
import urllib3
from confluent_kafka import KafkaException
from psycopg2 import sql

from headrace.dead_letter import Unavailable
from headrace.kafka import admin_client, ensure_topics, topics
from headrace.lake import LakeSettings, load_catalog
from runtime import accounts
from runtime.errors import RuntimeFailure

_BUCKET = "lake"
_DATABASES = ("lake", "airflow", "superset")


def make_topics(address: str, partitions: int) -> None:
    """The platform's topics. Raises RuntimeFailure."""
    try:
        ensure_topics(admin_client(address), topics(partitions))
    except KafkaException as error:
        raise RuntimeFailure(f"making the Kafka topics failed: {error.args[0].str()}") from None


def make_bucket(endpoint: str, access_key: str, secret_key: str, region: str, bucket: str = _BUCKET) -> None:
    """A bucket (the lake's) in the store at this URL. Raises RuntimeFailure."""
    url = urlsplit(endpoint)
    client = minio.Minio(url.netloc, access_key, secret_key, secure=url.scheme == "https", region=region)
    try:
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)
    except (minio.error.MinioException, urllib3.exceptions.HTTPError) as error:
        raise RuntimeFailure(f"making the bucket {bucket!r} failed: {error}") from None


def make_databases(url: str, databases: Sequence[str] = _DATABASES) -> None:
    """Databases of the server at this URL (without a database's name). Raises RuntimeFailure."""
    try:
        connection = psycopg2.connect(f"{url}/postgres", connect_timeout=3)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT datname FROM pg_database")
            there = {name for (name,) in cursor.fetchall()}
            for name in databases:
                if name not in there:
                    cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        connection.close()
    except psycopg2.Error as error:
        raise RuntimeFailure(f"making the PostgreSQL databases failed: {error}") from None


def make_catalog(env: Mapping[str, str]) -> None:
    """PyIceberg makes the catalog's own tables, in the one form that all three engines know; Trino would not. Raises RuntimeFailure."""
    try:
        load_catalog(LakeSettings.of(env))
    except Unavailable as error:
        raise RuntimeFailure(str(error)) from None


def make_mlflow(env: Mapping[str, str]) -> None:
    """MLflow's database and its bucket. Raises RuntimeFailure."""
    server, _, database = env["MLFLOW_DATABASE_URL"].rpartition("/")
    make_databases(server, (database,))
    bucket = urlsplit(env["MLFLOW_ARTIFACTS"]).netloc
    make_bucket(env["S3_ENDPOINT"], env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], env["S3_REGION"], bucket)


def _bring_dashboards(env: Mapping[str, str]) -> None:
    from runtime.dashboards import bring

    bring(Path("dashboards"), env, env["SUPERSET_URL"], env["TRINO_URL"], Path(env["STATE_DIR"]) / "data" / "dashboards.sha256")


_TASKS: dict[str, Callable[[Mapping[str, str]], None]] = {
    "topics": lambda env: make_topics(env["KAFKA_BOOTSTRAP_SERVERS"], int(env["KAFKA_PARTITIONS"])),
    "bucket": lambda env: make_bucket(env["S3_ENDPOINT"], env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], env["S3_REGION"]),
    "databases": lambda env: make_databases(env["POSTGRES_URL"]),
    "catalog": make_catalog,
    "mlflow": make_mlflow,
    "accounts-s3": lambda env: accounts.on_s3(env, _BUCKET),
    "accounts-postgres": accounts.on_postgres,
    "accounts-elasticsearch": accounts.on_elasticsearch,
    "dashboards": _bring_dashboards,
}


def main(tasks: list[str]) -> int:
    """Do each of `tasks` in order. A failure is one line on stderr, and exit code 1."""
    try:
        for task in tasks:
            _TASKS[task](os.environ)
    except RuntimeFailure as failure:
        print(f"headrace: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
