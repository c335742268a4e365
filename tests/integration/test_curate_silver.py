"""Bronze to silver with the real Spark, PostgreSQL and MinIO; each test has a lake of its own (catalog database and warehouse folder)."""

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from minio import Minio
from minio.deleteobjects import DeleteObject
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import NoSuchTableError

from headrace.lake import LakeSettings, load_catalog
from headrace.privacy import pseudonym
from runtime import java
from verify.ports import free_port

ROOT = Path(__file__).parent.parent.parent
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_TEXT = pa.string()
_POSITION = [("kafka_topic", _TEXT), ("kafka_partition", pa.int32()), ("kafka_offset", pa.int64())]
_RECEIPT = ["collector_id", "protocol", "key_id", "client", "user_agent"]
EVENTS = pa.schema(
    [("id", _TEXT), ("source", _TEXT), ("type", _TEXT), ("time", _TIMESTAMP), ("subject", _TEXT), ("dataschema", _TEXT), ("data", _TEXT)]
    + [("enrichment", _TEXT), ("received_at", _TIMESTAMP), ("enriched_at", _TIMESTAMP), ("loaded_at", _TIMESTAMP)]
    + [(name, _TEXT) for name in _RECEIPT]
    + _POSITION
)
DEAD_LETTERS = pa.schema(
    [("dead_letter_id", _TEXT), ("service", _TEXT), ("reason", _TEXT), ("detail", _TEXT), ("rejected_at", _TIMESTAMP), ("payload", _TEXT)]
    + [(name, _TEXT) for name in ("payload_encoding", "id", "source", "type", "subject", "time")]
    + [("received_at", _TIMESTAMP), ("key_id", _TEXT), ("origin_topic", _TEXT), ("origin_partition", pa.int32())]
    + [("origin_offset", pa.int64()), ("loaded_at", _TIMESTAMP)]
    + _POSITION
)
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

pytestmark = [pytest.mark.usefixtures("servers"), pytest.mark.timeout(900)]  # several starts of Spark


class Lake:
    """A lake of our own, and curation run on it."""

    def __init__(self, env: Mapping[str, str], catalog: SqlCatalog) -> None:
        self.env = dict(env)
        self.catalog = catalog
        self._offset = 0

    def append(self, *events: Mapping[str, Any]) -> None:
        """Add events to bronze in the order of Kafka, in one commit."""
        self.catalog.create_namespace_if_not_exists("bronze")
        rows = []
        for event in events:
            rows.append({"kafka_topic": "events.enriched", "kafka_partition": 0, "kafka_offset": self._offset} | dict(event))
            self._offset += 1
        self.catalog.create_table_if_not_exists("bronze.events", EVENTS).append(pa.Table.from_pylist(rows, schema=EVENTS))

    def append_dead_letters(self, *ids: str) -> None:
        """Add dead letters to bronze, in one commit."""
        self.catalog.create_namespace_if_not_exists("bronze")
        common = {
            "service": "enricher",
            "reason": "schema_invalid",
            "rejected_at": NOW,
            "payload": "{}",
            "kafka_topic": "dead-letter.enricher",
        }
        rows = [common | {"dead_letter_id": id, "kafka_partition": 0, "kafka_offset": n} for n, id in enumerate(ids)]
        table = self.catalog.create_table_if_not_exists("bronze.dead_letters", DEAD_LETTERS)
        table.append(pa.Table.from_pylist(rows, schema=DEAD_LETTERS))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a curation."""
        python = str(ROOT / ".runtime/venvs/spark/bin/python")
        command = [os.environ.get("SPARK_PYTHON", python), "-m", "dags.curation.main", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=ROOT, env=self.env, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def finish(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """What a curation says it did."""
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, f"{out}\n{err[-3000:]}"
        done: dict[str, Any] = json.loads(out.splitlines()[-1])
        return done

    def curate(self, *arguments: str) -> dict[str, Any]:
        """Curate once."""
        return self.finish(self.start(*arguments))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a silver table; none where it is not there."""
        try:
            rows: list[dict[str, Any]] = self.catalog.load_table(f"silver.{table}").scan().to_arrow().to_pylist()
        except NoSuchTableError:
            return []
        return rows

    def by_id(self, table: str) -> dict[str, dict[str, Any]]:
        """The rows of a silver table by the event's id, of which each must be there once."""
        rows = self.rows(table)
        assert len({row["id"] for row in rows}) == len(rows)
        return {row["id"]: row for row in rows}

    def results(self) -> list[dict[str, Any]]:
        """What was found of expectations."""
        rows: list[dict[str, Any]] = self.catalog.load_table("gold.quality_results").scan().to_arrow().to_pylist()
        return rows

    def snapshots(self) -> dict[str, int | None]:
        """The present snapshot of every silver table."""
        tables = [self.catalog.load_table(name) for name in self.catalog.list_tables("silver")]
        return {table.name()[-1]: table.metadata.current_snapshot_id for table in tables}


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    name = f"curate_test_{uuid.uuid4().hex[:12]}"
    postgres = os.environ["POSTGRES_URL"]
    _sql(postgres, f'CREATE DATABASE "{name}"')
    bucket = os.environ["LAKE_WAREHOUSE"].removeprefix("s3://").split("/")[0]
    here = {
        "JAVA17_HOME": str(java.home()),
        "SPARK_JARS": str(ROOT / ".runtime/servers/spark-jars"),
        "SCHEMAS_DIR": str(ROOT / "schemas"),
        "STATE_DIR": str(ROOT / os.environ["STATE_DIR"]),
        "LAKE_CATALOG_URL": f"{postgres}/{name}",
        "LAKE_WAREHOUSE": f"s3://{bucket}/{name}",
    }
    for key, value in here.items():
        monkeypatch.setenv(key, value)
    catalog = load_catalog(LakeSettings.load())
    yield Lake(os.environ, catalog)
    catalog.engine.dispose()
    _sql(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')
    minio = Minio(os.environ["S3_ENDPOINT"].split("//")[1], os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"], secure=False)
    objects = minio.list_objects(bucket, f"{name}/", recursive=True)
    assert list(minio.remove_objects(bucket, (DeleteObject(str(each.object_name)) for each in objects))) == []


def _sql(url: str, statement: str) -> None:
    with closing(psycopg2.connect(f"{url}/postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """A standalone master with two workers of one core each; its address."""
    python = Path(os.environ.get("SPARK_PYTHON", ROOT / ".runtime/venvs/spark/bin/python"))
    found = [str(python), "-c", "import pyspark, pathlib; print(pathlib.Path(pyspark.__file__).parent)"]
    home = Path(subprocess.run(found, capture_output=True, text=True, check=True).stdout.strip())
    env = {"JAVA_HOME": str(java.home()), "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "PATH": os.environ["PATH"]}
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    common = ["--host", "127.0.0.1", "--webui-port", "0"]
    worker = ["worker.Worker", master, *common, "--cores", "1", "--memory", "1g", "--work-dir", str(tmp_path / "work")]
    with ExitStack() as stack:
        for each in (["master.Master", *common, "--port", str(port)], worker, worker):
            log = stack.enter_context((tmp_path / f"{each[0]}.log").open("ab"))
            command = [str(home / "bin/spark-class"), f"org.apache.spark.deploy.{each[0]}", *each[1:]]
            process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        deadline = time.monotonic() + 240
        while (tmp_path / "worker.Worker.log").read_text().count("Successfully registered with master") < 2:
            assert time.monotonic() < deadline, (tmp_path / "worker.Worker.log").read_text()[-2000:]
            time.sleep(0.2)
        yield master


def event(id: str, data: str, type: str = "purchase", **others: Any) -> dict[str, Any]:
    """An event as it stands in bronze."""
    common = {"time": NOW - timedelta(days=400), "received_at": NOW, "enriched_at": NOW, "loaded_at": NOW, "enrichment": "{}"}
    return common | {"id": id, "source": "test", "type": type, "subject": "c1", "dataschema": f"{type}/1-0-0", "data": data} | others


def test_each_event_is_in_silver_once_or_in_quarantine_with_a_reason(lake: Lake) -> None:
    products = '[{"product_id":"p1","quantity":2.0,"price_usd":5,"colour":"red"},{"product_id":"p2","quantity":1,"price_usd":2.5}]'
    lake.append(
        event("plain", '{"quantity":3,"amount_usd":29.33}'),
        event("full", f'{{"quantity":2.0,"amount_usd":12.5,"order_id":"o","coupon":"SPRING","products":{products}}}'),
        event("twice", '{"quantity":1,"amount_usd":1}', time=NOW - timedelta(days=2)),
        event("twice", '{ "amount_usd": 1, "quantity": 1 }', time=NOW - timedelta(days=1)),
        event("conflict", '{"quantity":1,"amount_usd":1}'),
        event("conflict", '{"quantity":1,"amount_usd":2}'),
        event("conflict", '{"quantity":1,"amount_usd":1}', subject="c2"),
        event("huge", '{"quantity":10000000000000000000000,"amount_usd":1}'),
        event("future", '{"quantity":1,"amount_usd":1}', time=NOW + timedelta(days=3)),
        event("1970", '{"quantity":1,"amount_usd":1}', time=datetime(1970, 1, 1, tzinfo=UTC)),
        event("strange", '{"email":"b@example.com"}', type="strange"),
        event("version", '{"quantity":1,"amount_usd":1}', dataschema="purchase/9-0-0"),
        event("who", '{"created_at":"2020-02-29T23:59:60.5+01:00","email":"a@example.com","name":"Ann"}', type="identify"),
        event("same", '{"url":"https://example.com"}', type="page_view", source="a"),
        event("same", '{"method":"sso"}', type="login", source="b"),
    )
    lake.append_dead_letters("d1", "d2", "d1")

    done = [lake.finish(process) for process in [lake.start(), lake.start()]]  # two at once write nothing twice

    assert sorted(each["read"] for each in done) == [0, 15]
    first = max(done, key=lambda each: each["read"])
    assert first["inserted"] == {"identify": 1, "login": 1, "page_view": 1, "purchase": 4}
    assert (first["duplicates"], first["conflicts"], first["quarantined"]) == (1, 2, 5)
    assert (first["dead_letters_read"], first["dead_letters"]) == (3, 2)

    purchases = lake.by_id("purchase")
    assert set(purchases) == {"plain", "full", "twice", "conflict"}
    assert (purchases["plain"]["quantity"], purchases["plain"]["amount_usd"]) == (3, 29.33)
    assert purchases["plain"]["time"] == NOW - timedelta(days=400)
    assert not purchases["plain"]["products"]
    assert purchases["full"]["quantity"] == 2
    assert purchases["full"]["products"] == [
        {"product_id": "p1", "name": None, "quantity": 2, "price_usd": 5.0},
        {"product_id": "p2", "name": None, "quantity": 1, "price_usd": 2.5},
    ]
    assert json.loads(purchases["full"]["data_json"])["coupon"] == "SPRING"  # what no schema names is kept
    assert purchases["twice"]["time"] == NOW - timedelta(days=2)
    assert (purchases["conflict"]["amount_usd"], purchases["conflict"]["subject"]) == (1.0, "c1")
    assert lake.by_id("identify")["who"]["created_at"] == datetime(2020, 2, 29, 22, 59, 59, 999999, tzinfo=UTC)
    who = lake.by_id("identify")["who"]
    assert (who["email"], who["name"]) == (pseudonym(lake.env["PRIVACY_KEY"], "a@example.com"), None)
    assert json.loads(who["data_json"]) == {"created_at": "2020-02-29T23:59:60.5+01:00", "email": who["email"]}
    # Nobody knows what of a type that is not in the plan identifies a person.
    [strange] = [row for row in lake.rows("quarantine") if row["id"] == "strange"]
    assert (strange["data"], strange["enrichment"], strange["subject"]) == (None, None, pseudonym(lake.env["PRIVACY_KEY"], "c1"))
    assert sorted((row["source"], row["type"]) for row in lake.rows("events") if row["id"] == "same") == [
        ("a", "page_view"),
        ("b", "login"),
    ]
    assert len(lake.rows("events")) == 7
    assert sorted((row["id"], row["reason"]) for row in lake.rows("quarantine")) == [
        ("1970", "invalid_attribute"),
        ("conflict", "id_conflict"),
        ("conflict", "id_conflict"),
        ("future", "invalid_attribute"),
        ("huge", "row_rejected"),
        ("strange", "unknown_type"),
        ("version", "unknown_schema"),
    ]
    assert sorted(row["dead_letter_id"] for row in lake.rows("dead_letters")) == ["d1", "d2"]

    # Late events, repetitions and conflicts with what is in silver already; then everything is read from the beginning.
    lake.append(
        event("late", '{"quantity":1,"amount_usd":7}', time=NOW - timedelta(days=9000)),
        event("plain", '{"amount_usd":29.33,"quantity":3}'),
        event("full", '{"quantity":9,"amount_usd":9}'),
        event("who", '{"name":"Ann","email":"a@example.com","created_at":"2020-02-29T23:59:60.5+01:00"}', type="identify"),
    )
    lake.append_dead_letters("d2", "d3")
    second = lake.curate()
    assert (second["read"], second["inserted"], second["duplicates"], second["conflicts"]) == (4, {"purchase": 1}, 2, 1)
    assert (second["dead_letters_read"], second["dead_letters"]) == (2, 1)
    assert set(lake.by_id("purchase")) == {"plain", "full", "twice", "conflict", "late"}
    assert lake.by_id("purchase")["full"]["quantity"] == 2

    before = lake.snapshots()
    for name in ("silver.events", "silver.dead_letters"):
        with lake.catalog.load_table(name).transaction() as change:
            change.remove_properties("headrace.curated-snapshot")
    again = lake.curate()
    assert (again["read"], again["inserted"], again["repaired"], again["dead_letters"]) == (19, {}, {}, 0)
    assert lake.snapshots() == before
    costs = lake.catalog.load_table("gold.runs").scan().to_arrow().sort_by("started_at").to_pylist()
    assert sorted((cost["rows_read"], cost["rows_written"]) for cost in costs[:2]) == [(0, 0), (18, 7 + 7 + 2)]
    assert [(cost["job"], cost["rows_read"], cost["rows_written"]) for cost in costs[2:]] == [("silver", 6, 3), ("silver", 24, 0)]


def test_a_killed_curation_is_repaired_by_the_next_and_a_new_property_becomes_a_column(lake: Lake, tmp_path: Path) -> None:
    assert lake.curate()["read"] == 0  # no bronze yet: tables are there, and empty
    assert {"events", "quarantine", "dead_letters", "purchase", "page_view"} <= set(lake.snapshots())

    lake.append(
        *(event(f"{type}-{n}", data, type=type) for n in range(200) for type, data in [("purchase", '{"quantity":1,"amount_usd":0.1}')]),
        *(event(f"page-{n}", '{"url":"https://example.com"}', type="page_view") for n in range(200)),
        *(event("purchase-7", '{"quantity":2,"amount_usd":0.1}') for _ in range(3)),
    )
    cut_off = lake.start()
    while not lake.rows("events") and cut_off.poll() is None:
        time.sleep(0.05)
    os.killpg(cut_off.pid, signal.SIGKILL)
    cut_off.communicate()
    assert len(lake.rows("events")) == 400

    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)
    schema = json.loads((schemas / "purchase/1-0-0.json").read_text())
    schema["properties"]["coupon"] = {"type": "string", "description": "Code of the customer's coupon."}
    schema["properties"]["products"]["items"]["properties"]["weight_g"] = {"type": "integer"}
    (schemas / "purchase/1-1-0.json").write_text(json.dumps(schema))
    schema["properties"]["order_id"] = {"type": "integer"}
    (schemas / "purchase/2-0-0.json").write_text(json.dumps(schema))
    lake.env["SCHEMAS_DIR"] = str(schemas)
    products = '[{"product_id":"p","quantity":1,"price_usd":1,"weight_g":80}]'
    lake.append(event("new", f'{{"quantity":1,"amount_usd":1,"coupon":"MAY","products":{products}}}', dataschema="purchase/1-1-0"))
    lake.append(
        event("text", '{"quantity":1,"amount_usd":1,"order_id":"a7"}', dataschema="purchase/1-1-0"),
        event("number", '{"quantity":1,"amount_usd":1,"order_id":7}', dataschema="purchase/2-0-0"),
    )

    assert lake.curate()["inserted"] == {"purchase": 3}
    purchases = lake.by_id("purchase")
    assert set(purchases) == {f"purchase-{n}" for n in range(200)} | {"new", "text", "number"}
    assert [(purchases[id]["order_id"], purchases[id]["order_id_v2"]) for id in ("text", "number")] == [("a7", None), (None, 7)]
    assert purchases["purchase-7"]["quantity"] == 1
    assert purchases["purchase-7"]["coupon"] is None
    assert purchases["new"]["coupon"] == "MAY"
    assert purchases["new"]["products"] == [{"product_id": "p", "name": None, "quantity": 1, "price_usd": 1.0, "weight_g": 80}]
    assert len(lake.by_id("page_view")) == 200
    assert len(lake.rows("events")) == 403
    # Each row was checked once, whichever of the two runs did it.
    checked = [(row["checked"], row["failed"]) for row in lake.results() if row["expectation"] == "quantity_is_possible"]
    assert [sum(each) for each in zip(*checked, strict=True)] == [203, 0]
    assert [(row["id"], row["reason"]) for row in lake.rows("quarantine")] == [("purchase-7", "id_conflict")] * 3


INDEX = ("source", "id", "type", "time", "received_at", "content_hash")
EXPECTED = """
plausible: {check: range, property: amount_usd, max: 100, level: warn}
possible: {check: range, property: amount_usd, max: 1000, level: fail}
once: {check: unique, property: order_id, days: 1, level: fail}
seen: {check: reference, property: session_id, to: page_view.session_id, level: warn}
fresh: {check: fresh, hours: 1, level: warn}
"""


def test_what_is_expected_is_checked_and_the_results_are_kept_once(lake: Lake, tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)
    for path in schemas.glob("*/expectations.yaml"):
        path.unlink()
    (schemas / "purchase/expectations.yaml").write_text(EXPECTED)
    lake.env |= {"SCHEMAS_DIR": str(schemas), "AIRFLOW_CTX_DAG_RUN_ID": "first"}
    now = datetime.now(UTC)

    def bought(id: str, amount: float, time: datetime = now, **data: Any) -> dict[str, Any]:
        return event(id, json.dumps({"quantity": 1, "amount_usd": amount} | data), time=time, received_at=now)

    # A lake from before identities had hashes, with one event in it.
    lake.catalog.create_namespace("silver")
    of_old = pa.schema([(name, _TIMESTAMP if name in ("time", "received_at") else _TEXT) for name in INDEX])
    known = {"source": "test", "id": "known", "type": "purchase", "time": now, "received_at": now, "content_hash": "other"}
    lake.catalog.create_table("silver.events", of_old).append(pa.Table.from_pylist([known], schema=of_old))

    lake.append(
        bought("fine", 5, order_id="o1", session_id="s1"),
        bought("again", 500, order_id="o1", session_id="s2"),
        bought("far too much", 5000),
        bought("known", 5),
        bought("late", 5, time=now - timedelta(days=3)),
        bought("ahead", 5, time=now + timedelta(seconds=90)),
        event("page", '{"url":"https://example.com","session_id":"s1"}', type="page_view", time=now, received_at=now),
    )
    process = lake.start()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert err.splitlines()[-1] == (
        "curation: all was written, but an expectation does not hold: purchase.once: no order_id comes twice in 1 days: 1 of 2 (fail)"
    )
    done = json.loads(out.splitlines()[-1])
    assert (done["inserted"], done["quarantined"]) == ({"page_view": 1, "purchase": 4}, 1)
    assert sorted((row["id"], row["reason"], row["detail"]) for row in lake.rows("quarantine")) == [
        ("far too much", "quality", "this does not hold: possible: amount_usd is at most 1000"),
        ("known", "id_conflict", "an event of the same source and id, but other content, came before"),
    ]
    purchases = lake.by_id("purchase")
    assert {id: (row["is_late"], row["clock_skew_seconds"]) for id, row in purchases.items()} == {
        "fine": (False, 0), "again": (False, 0), "late": (True, 0), "ahead": (False, 90),
    }  # fmt: skip
    assert purchases["late"]["time"] == now - timedelta(days=3)
    found = {row["expectation"]: (row["check"], row["level"], row["checked"], row["failed"]) for row in lake.results()}
    assert found == {
        "plausible": ("range", "warn", 5, 2),
        "possible": ("range", "fail", 5, 1),
        "once": ("unique", "fail", 2, 1),
        "seen": ("reference", "warn", 2, 1),
        "fresh": ("fresh", "warn", 4, 0),
    }
    assert {(row["run_id"], row["type"]) for row in lake.results()} == {("first", "purchase")}

    # The refused one comes again, mended; and the last run is as if it had been killed before its results were copied.
    lake.catalog.load_table("gold.quality_results").delete("level = 'warn' or level = 'fail'")
    (schemas / "purchase/expectations.yaml").write_text(EXPECTED.replace("days: 1, level: fail", "days: 1, level: warn"))
    lake.env["AIRFLOW_CTX_DAG_RUN_ID"] = "second"
    lake.append(bought("far too much", 50))
    assert lake.curate()["inserted"] == {"purchase": 1}
    plausible = {row["run_id"]: (row["checked"], row["failed"]) for row in lake.results() if row["expectation"] == "plausible"}
    assert plausible == {"first": (5, 2), "second": (1, 0)}
    assert len(lake.results()) == 10


def test_a_cluster_curates_as_this_machine_does(lake: Lake, cluster: str) -> None:
    """A standalone master and two workers, of which each has an executor; then the same on this machine alone."""
    for n in range(4):
        lake.append(
            *(event(f"{n}-{m}", '{"quantity":1,"amount_usd":0.5}') for m in range(50)),
            *(event(f"page-{m}", f'{{"url":"https://example.com/{n}"}}', type="page_view") for m in range(3)),
        )
    lake.append_dead_letters("d1", "d1", "d2")
    here = dict(lake.env)
    lake.env |= {"CURATION_MASTER": cluster, "CURATION_DRIVER_HOST": "127.0.0.1", "CURATION_EXECUTOR_CORES": "1"}
    lake.env |= {"CURATION_EXECUTOR_MEMORY": "700m"}
    there = lake.curate()
    assert (there["input_files"], there["executors"], there["executor_cores"]) == (5, 2, 1)
    assert (there["inserted"], there["conflicts"], there["dead_letters"]) == ({"page_view": 3, "purchase": 200}, 9, 2)
    tables = sorted(lake.snapshots())
    made = {table: sorted(map(str, lake.rows(table))) for table in tables}
    for table in tables:
        lake.catalog.drop_table(f"silver.{table}")

    lake.env = here
    again = lake.curate()
    assert (again["executors"], again["executor_cores"]) == (1, 2)
    assert {table: sorted(map(str, lake.rows(table))) for table in tables} == made


def test_days_are_curated_again_by_the_plan_as_it_is_now(lake: Lake, tmp_path: Path) -> None:
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / "schemas", schemas)
    lake.env["SCHEMAS_DIR"] = str(schemas)
    before = NOW - timedelta(days=3)
    data = '{"quantity":1,"amount_usd":1,"coupon":"MAY"}'
    lake.append(
        event("mended", data),
        event("other day", data, received_at=before),
        event("released", data, dataschema="purchase/1-1-0"),
        event("still refused", '{"quantity":1.5,"amount_usd":1}'),
        event("conflict", '{"quantity":1,"amount_usd":1}'),
        event("conflict", '{"quantity":1,"amount_usd":2}'),
    )
    assert lake.curate()["inserted"] == {"purchase": 3}
    assert "coupon" not in lake.by_id("purchase")["mended"]

    schema = json.loads((schemas / "purchase/1-0-0.json").read_text())
    schema["properties"]["coupon"] = {"type": "string"}
    for version in ("1-0-0", "1-1-0"):
        (schemas / f"purchase/{version}.json").write_text(json.dumps(schema))
    days = ("--from", f"{NOW:%Y-%m-%d}", "--to", f"{NOW:%Y-%m-%d}")
    again = lake.curate(*days)
    assert (again["read"], again["inserted"], again["mended"]) == (5, {"purchase": 1}, {"purchase": 1})
    assert (again["released"], again["newly_refused"]) == (1, 0)
    purchases = lake.by_id("purchase")
    assert {id: row["coupon"] for id, row in purchases.items()} == {"mended": "MAY", "other day": None, "released": "MAY", "conflict": None}
    assert {row["id"] for row in lake.rows("events")} == set(purchases)
    assert sorted((row["id"], row["reason"]) for row in lake.rows("quarantine")) == [
        ("conflict", "id_conflict"),
        ("still refused", "row_rejected"),
    ]

    snapshots = lake.snapshots()
    twice = lake.curate(*days)
    assert (twice["inserted"], twice["mended"], twice["released"], twice["newly_refused"]) == ({}, {}, 0, 0)
    assert lake.snapshots() == snapshots
    lake.append(event("next", data), event("released", data, dataschema="purchase/1-1-0"))  # an ordinary run goes on where it was
    ordinary = lake.curate()
    assert (ordinary["read"], ordinary["inserted"], ordinary["duplicates"], ordinary["repaired"]) == (2, {"purchase": 1}, 1, {})
