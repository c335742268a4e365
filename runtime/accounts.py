"""Accounts of the components in production, on PostgreSQL, MinIO and Elasticsearch: each has what it needs, and no more.

The password of an account NAME is the setting NAME_PASSWORD (one secret for all servers). Everything here may be done again, and a new
password takes the place of the one before.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import urllib3
from elasticsearch import ApiError, TransportError
from minio.credentials.providers import StaticProvider
from minio.error import MinioException
from minio.minioadmin import MinioAdmin
from psycopg2 import sql

from headrace.search import client_of
from runtime.errors import RuntimeFailure

# Who of the lake's users may write: the catalog's rows, and the bucket's objects.
LAKE = {"loader": True, "curation": True, "trino": True, "reader": False}
OWNERS = ("airflow", "superset")  # of the database of the same name, and of nothing else
# What may be done with Elasticsearch as a whole, and with the platform's indices, in its own words: the loader fills them, Trino reads them
# (and asks where they are), and a person looks, and erases.
SEARCH: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "loader": (("monitor", "manage_index_templates"), ("create_index", "index", "create", "read", "view_index_metadata", "manage")),
    "trino": (("monitor",), ("read", "view_index_metadata", "monitor")),
    "operator": (("monitor",), ("read", "delete", "maintenance", "manage", "view_index_metadata")),
}
_INDICES = ("events-*", "dead-letters-*", "events_all", "dead_letters_all")
_READ = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")
_WRITE = ("s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads")


def policy(bucket: str, writes: bool) -> dict[str, object]:
    """What an account may do with one bucket, as S3 writes it."""
    actions = [*_READ, *(_WRITE if writes else ())]
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resources}]}


def on_s3(env: Mapping[str, str], bucket: str) -> None:
    """Users and their policies. Raises RuntimeFailure."""
    url = urlsplit(env["S3_ENDPOINT"])
    root = StaticProvider(env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"])
    admin = MinioAdmin(endpoint=url.netloc, credentials=root, secure=url.scheme == "https", region=env["S3_REGION"])
    try:
        for name, writes in LAKE.items():
            admin.user_add(name, env[f"{name.upper()}_PASSWORD"])
            admin.policy_add(f"headrace-{name}", policy=policy(bucket, writes))
            if f"headrace-{name}" not in json.loads(admin.user_info(name)).get("policyName", ""):
                admin.attach_policy([f"headrace-{name}"], user=name)
    except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
        raise RuntimeFailure(f"making the accounts of MinIO failed: {error}") from None


def on_postgres(env: Mapping[str, str]) -> None:
    """Roles and their rights; the catalog's tables must be there. Raises RuntimeFailure."""
    try:
        for name in (*LAKE, *OWNERS):
            _execute(env, "postgres", *_role(name, env[f"{name.upper()}_PASSWORD"], env))
        for name in OWNERS:
            _execute(env, name, *_owner(name))
        _execute(env, "lake", *(statement for name, writes in LAKE.items() for statement in _lake_user(name, writes)))
        _execute(env, "postgres", *(_sql("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", each) for each in ("lake", *OWNERS, "postgres")))
    except psycopg2.Error as error:
        raise RuntimeFailure(f"making the accounts of PostgreSQL failed: {str(error).strip()}") from None


def on_elasticsearch(env: Mapping[str, str]) -> None:
    """Roles, and a user of each. Raises RuntimeFailure."""
    try:
        with client_of(env, request_timeout=30) as client:
            for name in SEARCH:
                client.security.put_role(name=f"headrace-{name}", **search_role(name))
                client.security.put_user(username=name, password=env[f"{name.upper()}_PASSWORD"], roles=[f"headrace-{name}"])
    except (ApiError, TransportError) as error:
        raise RuntimeFailure(f"making the accounts of Elasticsearch failed: {error}") from None


def search_role(name: str) -> dict[str, Any]:
    """What an account may do in Elasticsearch, as it writes it."""
    cluster, indices = SEARCH[name]
    return {"cluster": [*cluster], "indices": [{"names": [*_INDICES], "privileges": [*indices]}]}


def _sql(text: str, *names: str) -> sql.Composed:
    return sql.SQL(text).format(*map(sql.Identifier, names))


def _role(name: str, password: str, env: Mapping[str, str]) -> list[sql.Composable]:
    connection = psycopg2.connect(f"{env['POSTGRES_URL']}/postgres", connect_timeout=10)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
        there = cursor.fetchone() is not None
    connection.close()
    how = "ALTER" if there else "CREATE"
    rights = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
    return [sql.SQL("{} ROLE {} {} PASSWORD {}").format(sql.SQL(how), sql.Identifier(name), sql.SQL(rights), sql.Literal(password))]


def _owner(name: str) -> list[sql.Composable]:
    return [_sql("ALTER DATABASE {} OWNER TO {}", name, name), _sql("ALTER SCHEMA public OWNER TO {}", name)]


def _lake_user(name: str, writes: bool) -> list[sql.Composable]:
    rights = "SELECT, INSERT, UPDATE, DELETE" if writes else "SELECT"
    return [
        _sql("GRANT CONNECT ON DATABASE lake TO {}", name),
        _sql("GRANT USAGE ON SCHEMA public TO {}", name),
        sql.SQL("GRANT {} ON ALL TABLES IN SCHEMA public TO {}").format(sql.SQL(rights), sql.Identifier(name)),
    ]


def _execute(env: Mapping[str, str], database: str, *statements: sql.Composable) -> None:
    connection = psycopg2.connect(f"{env['POSTGRES_URL']}/{database}", connect_timeout=10)
    try:
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()
