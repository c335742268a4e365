"""Trino, Airflow and Superset as `make up` leaves them, and the environments of Spark and dbt."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from trino.dbapi import connect
from trino.exceptions import TrinoUserError

from runtime import dashboards
from runtime.maven import read_lock, sums
from runtime.platform import env_path, place_at

pytestmark = pytest.mark.usefixtures("platform")

ROOT = Path(__file__).parent.parent.parent


def _query(sql: str, user: str | None = None, source: str = "tests") -> list[list[Any]]:
    with connect(  # type: ignore[no-untyped-call]
        host=os.environ["BIND_HOST"], port=int(os.environ["TRINO_PORT"]), user=user or os.environ["TRINO_USER"], source=source
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        return [list(row) for row in cursor.fetchall()]


def _address(port: str) -> str:
    return f"http://{os.environ['BIND_HOST']}:{os.environ[port]}"


@pytest.fixture
def schema() -> Iterator[str]:
    name = f"lake.test_{uuid.uuid4().hex[:12]}"
    _query(f"CREATE SCHEMA {name}")
    yield name
    for (table,) in _query(f"SHOW TABLES FROM {name}"):
        _query(f"DROP TABLE {name}.{table}")
    _query(f"DROP SCHEMA {name}")


@pytest.fixture
def airflow() -> Iterator[httpx.Client]:
    login = {"username": os.environ["AIRFLOW_ADMIN_USER"], "password": os.environ["AIRFLOW_ADMIN_PASSWORD"]}
    with httpx.Client(base_url=_address("AIRFLOW_PORT"), timeout=60) as client:
        client.headers["Authorization"] = f"Bearer {client.post('/auth/token', json=login).raise_for_status().json()['access_token']}"
        yield client


@pytest.fixture
def superset() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=_address("SUPERSET_PORT"), timeout=60) as client:
        dashboards.log_in(client, os.environ)
        yield client


def test_trino_has_the_two_catalogs() -> None:
    assert {"lake", "elasticsearch"} <= {name for (name,) in _query("SHOW CATALOGS")}


def test_trino_writes_changes_and_reads_the_lake(schema: str) -> None:
    _query(f"CREATE TABLE {schema}.t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t (id, name)")
    _query(
        f"MERGE INTO {schema}.t AS t USING (VALUES (2, 'B'), (3, 'c')) AS n (id, name) ON t.id = n.id "
        "WHEN MATCHED THEN UPDATE SET name = n.name WHEN NOT MATCHED THEN INSERT VALUES (n.id, n.name)"
    )
    assert _query(f"SELECT id, name FROM {schema}.t ORDER BY id") == [[1, "a"], [2, "B"], [3, "c"]]


def test_who_asks_for_the_dashboards_reads_and_cannot_write(schema: str) -> None:
    _query(f"CREATE TABLE {schema}.t AS SELECT 1 AS id")
    assert _query(f"SELECT id FROM {schema}.t", "superset") == [[1]]
    assert _query("SELECT count(*) >= 0 FROM elasticsearch.default.events_all", "superset") == [[True]]
    catalog, name = schema.split(".")
    for statement in (
        f"INSERT INTO {schema}.t VALUES 2",
        f"DELETE FROM {schema}.t",
        f"UPDATE {schema}.t SET id = 2",
        f"DROP TABLE {schema}.t",
        f"CREATE TABLE {schema}.other AS SELECT 1 AS id",
        f"CREATE VIEW {schema}.v AS SELECT 1 AS id",
        f"ALTER TABLE {schema}.t ADD COLUMN name varchar",
        f"CREATE SCHEMA {schema}_more",
        f"DROP SCHEMA {schema} CASCADE",
        f"CALL {catalog}.system.unregister_table('{name}', 't')",
    ):
        with pytest.raises(TrinoUserError, match="Access Denied"):
            _query(statement, "superset")
    assert _query(f"SELECT id FROM {schema}.t") == [[1]]


@pytest.mark.parametrize(
    ("user", "source", "group"),
    [
        ("superset", "Apache Superset", "dashboards"),
        (None, "dbt-trino-1.11.0", "dbt"),
        (None, "maintain", "upkeep"),
        (None, "headrace", "people"),
    ],
)
def test_a_query_is_counted_with_those_of_its_kind(user: str | None, source: str, group: str) -> None:
    mark = f"tests {uuid.uuid4().hex}"
    _query(f"SELECT '{mark}'", user, source)
    asked = _query(f"SELECT resource_group_id FROM system.runtime.queries WHERE query LIKE 'SELECT _{mark}_'")
    assert asked == [[["trino", group]]]


def test_trino_tells_times_in_utc() -> None:
    assert _query("SELECT date_diff('second', CAST(now() AT TIME ZONE 'UTC' AS timestamp), localtimestamp)") == [[0]]


def test_trino_reads_elasticsearch_through_an_alias() -> None:
    name = f"test-{uuid.uuid4().hex[:12]}"
    fields = {"type": {"type": "keyword"}, "received_at": {"type": "date"}}
    with httpx.Client(base_url=os.environ["ELASTICSEARCH_URL"], timeout=60) as client:
        try:
            for day in ("01", "02"):
                index = {"mappings": {"properties": fields}, "aliases": {f"{name}_all": {}}}
                client.put(f"/{name}-{day}", json=index).raise_for_status()
                document = {"type": f"kind {day}", "received_at": f"2026-01-{day}T10:00:00Z"}
                client.post(f"/{name}-{day}/_doc?refresh=true", json=document).raise_for_status()
            found = _query(f'SELECT type, CAST(received_at AS varchar) FROM elasticsearch.default."{name}_all" ORDER BY type')
            assert found == [["kind 01", "2026-01-01 10:00:00.000"], ["kind 02", "2026-01-02 10:00:00.000"]]
        finally:
            for day in ("01", "02"):
                client.delete(f"/{name}-{day}")


def test_airflow_s_four_parts_are_healthy() -> None:
    health = httpx.get(f"{_address('AIRFLOW_PORT')}/api/v2/monitor/health", timeout=60).raise_for_status().json()
    parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
    assert {part: health[part]["status"] for part in parts} == dict.fromkeys(parts, "healthy")


def test_airflow_refuses_a_wrong_password() -> None:
    login = {"username": os.environ["AIRFLOW_ADMIN_USER"], "password": "wrong"}
    assert httpx.post(f"{_address('AIRFLOW_PORT')}/auth/token", json=login, timeout=60).status_code == 401


def test_airflow_has_the_dags_and_nothing_that_it_cannot_import(airflow: httpx.Client) -> None:
    dags = airflow.get("/api/v2/dags").raise_for_status().json()["dags"]
    ours = ("backfill", "curate", "maintain", "quality_report", "score", "train", "watch")
    assert {dag["dag_id"]: dag["is_paused"] for dag in dags} == dict.fromkeys(ours, False)
    assert airflow.get("/api/v2/importErrors").raise_for_status().json()["import_errors"] == []


def test_superset_refuses_a_wrong_password() -> None:
    login = {"username": os.environ["SUPERSET_ADMIN_USER"], "password": "wrong", "provider": "db"}
    assert httpx.post(f"{_address('SUPERSET_PORT')}/api/v1/security/login", json=login, timeout=60).status_code == 401


def test_superset_loads_nothing_from_elsewhere() -> None:
    policy = httpx.get(f"{_address('SUPERSET_PORT')}/login/", timeout=60).headers["content-security-policy"]
    assert "http" not in policy
    assert "default-src 'self'" in policy


def test_superset_reaches_both_catalogs(superset: httpx.Client) -> None:
    found = superset.get("/api/v1/database/").raise_for_status().json()["result"]
    numbers = {database["database_name"]: database["id"] for database in found}
    for name, schema in (("Headrace lake", "bronze"), ("Headrace live", "default")):
        assert schema in superset.get(f"/api/v1/database/{numbers[name]}/schemas/").raise_for_status().json()["result"]


def test_dashboards_are_imported_once_and_again_only_where_missing(superset: httpx.Client) -> None:
    place = place_at(env_path())

    def changed(slug: str) -> str:
        return str(superset.get(f"/api/v1/dashboard/{slug}").raise_for_status().json()["result"]["changed_on"])

    dashboards.import_dashboards(place)
    before = {slug: changed(slug) for slug in ("sales", "live-events", "quality", "pipeline", "models")}
    dashboards.import_dashboards(place)
    assert {slug: changed(slug) for slug in before} == before

    number = superset.get("/api/v1/dashboard/live-events").raise_for_status().json()["result"]["id"]
    superset.headers["X-CSRFToken"] = superset.get("/api/v1/security/csrf_token/").raise_for_status().json()["result"]
    superset.headers["Referer"] = str(superset.base_url)
    superset.delete(f"/api/v1/dashboard/{number}").raise_for_status()
    dashboards.import_dashboards(place)
    found = superset.get("/api/v1/dashboard/").raise_for_status().json()["result"]
    assert sorted(dashboard["slug"] for dashboard in found) == ["live-events", "models", "pipeline", "quality", "sales"]
    charts = superset.get("/api/v1/dashboard/live-events/charts").raise_for_status().json()["result"]
    assert len(charts) == 11


def test_spark_s_jars_are_those_locked() -> None:
    folder = ROOT / ".runtime" / "servers" / "spark-jars"
    wanted = read_lock(ROOT / "runtime" / "maven" / "spark" / "sha256.txt")
    assert {name: digest for name, digest in sums(folder).items() if name.endswith(".jar")} == wanted


def test_dbt_knows_trino() -> None:
    dbt = ROOT / ".runtime" / "venvs" / "dbt" / "bin" / "dbt"
    said = subprocess.run([str(dbt), "--no-use-colors", "--version"], capture_output=True, text=True, check=True)
    assert "- trino:" in said.stdout
