"""A person who is marked, and erased: on the platform, from the collector to the bytes in the object store."""

import json
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from elasticsearch import Elasticsearch, helpers
from minio import Minio
from minio.error import S3Error
from pyiceberg.avro.file import AvroFile

from cli.airflow import run_dag
from cli.privacy.commands import loader_runs
from cli.privacy.person import Person
from cli.privacy.search import Refused
from cli.privacy.search import erase as erase_documents
from dags.upkeep.main import cursor_of
from headrace.privacy import masked, pseudonym, tree
from runtime import java
from runtime.platform import env_path, place_at
from runtime.supervisor import Supervisor
from tests.integration import lakes

ROOT = Path(__file__).parents[2]
# Tables with a row for each event, of which the same came again under other ids.
DOUBLED = {f"silver.{name}" for name in ("identify", "page_view", "purchase", "quarantine", "dead_letters")}
DOUBLED |= {f"gold.{name}" for name in ("fact_purchase", "fact_page_view", "fact_activity", "fact_prediction", "prediction_truth")}
HEADRACE = ROOT / "bin" / "headrace"

pytestmark = [pytest.mark.usefixtures("platform"), pytest.mark.timeout(1500)]  # two runs of the DAG


def sql(statement: str) -> list[list[Any]]:
    """What Trino answers."""
    cursor = cursor_of(os.environ)
    cursor.execute(statement)
    found: list[list[Any]] = cursor.fetchall()
    return found


def post(*events: Mapping[str, Any]) -> dict[str, Any]:
    """Send CloudEvents."""
    address = f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/events"
    headers = {"content-type": "application/cloudevents-batch+json"}
    key = (os.environ["HEADRACE_WRITE_KEY"], "")
    answer = httpx.post(
        address, content=json.dumps([{"specversion": "1.0", **each} for each in events]), headers=headers, auth=key, timeout=30
    )
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def life(source: str, subject: str, day: str) -> list[dict[str, Any]]:
    """What a person does: five events, of which one is refused by its schema and one by curation."""

    def event(type: str, number: int, **data: object) -> dict[str, Any]:
        at = f"{day}T10:0{number}:00Z"
        return {"id": f"{subject}-{number}", "source": source, "type": type, "time": at, "subject": subject, "data": data}

    return [
        event("identify", 1, email=f"{subject}@mail.example", name=f"Name of {subject}", plan="free", note=f"said by {subject}"),
        event("page_view", 2, url=f"https://shop.example/{subject}", path="/", session_id=f"visit of {subject}"),
        event("purchase", 3, quantity=1, amount_usd=5.25, session_id=f"visit of {subject}"),
        event("purchase", 3, quantity=2, amount_usd=5.25, session_id=f"visit of {subject}"),  # an id_conflict
        event("purchase", 4, quantity="many", amount_usd=1, order_id=subject),
    ]


def erase(*arguments: str) -> subprocess.Popen[str]:
    """Begin `headrace privacy erase`."""
    command = [str(HEADRACE), "privacy", "erase", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def without_loader() -> Iterator[None]:
    """The platform with its batch loader stopped, until the block ends."""
    supervisor = Supervisor(place_at(env_path()))
    supervisor.stop("batch-loader")
    try:
        until(lambda: not loader_runs(os.environ))
        yield
    finally:
        supervisor.start("batch-loader")


def said(process: subprocess.Popen[str]) -> str:
    """What it printed, once it ended well."""
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, f"{out}\n{err}"
    return out


def documents(subject: str) -> int:
    """How many documents of the last half hour in Elasticsearch have the subject anywhere."""
    client = Elasticsearch(os.environ["ELASTICSEARCH_URL"], request_timeout=30)
    client.indices.refresh(index=["events_all", "dead_letters_all"])
    found = 0
    for alias, moment in (("events_all", "received_at"), ("dead_letters_all", "rejected_at")):
        recent = {"query": {"range": {moment: {"gte": "now-30m"}}}}
        found += sum(subject in json.dumps(hit["_source"]) for hit in helpers.scan(client, query=recent, index=alias, size=5000))
    return found


def rows(subject: str) -> dict[str, list[list[Any]]]:
    """All rows of silver and gold with a subject in them."""
    tables = sql(
        "SELECT table_schema, table_name, max(column_name) FROM lake.information_schema.columns"
        " WHERE table_schema IN ('silver', 'gold') AND column_name IN ('subject', 'customer_id') GROUP BY 1, 2 ORDER BY 1, 2"
    )
    found = {f"{schema}.{name}": sql(f"SELECT * FROM lake.{schema}.\"{name}\" WHERE {by} = '{subject}'") for schema, name, by in tables}
    return {table: sorted(of, key=str) for table, of in found.items()}


def holding(*texts: str) -> set[str]:
    """The objects of the warehouse in whose bytes, unpacked where they are packed, one of the texts stands."""
    bucket, _, folder = os.environ["LAKE_WAREHOUSE"].removeprefix("s3://").partition("/")
    minio = Minio(os.environ["S3_ENDPOINT"].split("//")[1], os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"], secure=False)
    names = [str(each.object_name) for each in minio.list_objects(bucket, f"{folder}/", recursive=True)]
    assert names, "nothing is where the lake should be"
    io = lakes.catalog().load_table("bronze.events").io

    def holds(name: str) -> bool:
        try:
            raw = minio.get_object(bucket, name).read()
        except S3Error as error:
            if error.code != "NoSuchKey":
                raise
            return False  # a writer's own, gone since
        found = [raw, *_unpacked(name, raw, lambda: io.new_input(f"s3://{bucket}/{name}"))]
        return any(text.encode() in each for text in texts for each in found)

    with ThreadPoolExecutor(4) as pool:
        return {name for name, hit in zip(names, pool.map(holds, names), strict=True) if hit}


def _unpacked(name: str, raw: bytes, open: Any) -> Iterator[bytes]:
    if name.endswith(".parquet"):
        file = pq.ParquetFile(pa.BufferReader(raw))
        yield str(file.metadata.to_dict()).encode()  # least and greatest values
        yield str(file.read().to_pylist()).encode()
    elif name.endswith(".avro"):
        with AvroFile[Any](open()) as records:
            yield str(list(records)).encode()


def until(look: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.5)


def landed(subject: str) -> bool:
    """Whether bronze and Elasticsearch have the life of a subject, with its dead letter."""
    events = lakes.column("bronze.events", "subject").count(subject)
    letters = lakes.column("bronze.dead_letters", "subject").count(subject)
    return events >= 4 and letters >= 1 and documents(subject) >= 4  # of the two of the same id Elasticsearch has one


# Run in Spark's environment: what `masked` makes of each text, by the marks and the key of the first line.
MASKED = """
import json, sys
from pyspark.sql import SparkSession
from dags.curation.privacy import Marks, masked
from headrace.privacy import tree
given = json.loads(sys.argv[1])
local = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false"}
builder = SparkSession.builder.master("local[1]").config("spark.sql.caseSensitive", "true")
for name, value in local.items():
    builder = builder.config(name, value)
spark = builder.getOrCreate()
rows = [("t", text, text, "{}") for text in given["texts"]]
bronze = spark.createDataFrame(rows, "type string, subject string, data string, enrichment string")
made = masked(bronze, Marks({"t": tree(given["marks"])}, "k"))
print(json.dumps([(row.subject, row.data) for row in made.collect()]))
"""


def test_spark_masks_as_elasticsearchs_loader_does() -> None:
    marks = {"subject": "hash", "data/email": "hash", "data/name": "drop", "data/home/street": "drop", "data/home/zip": "hash"}
    marks |= {"data/orders/*/to": "hash", "data/phones/*": "hash"}
    texts = [
        '{"email":"a@b.c","name":"Ann","n":1.50,"big":123456789012345678901234567890,"small":1e-7,"home":{"street":"S","zip":"z","n":1},'
        '"orders":[{"to":"x","n":1},null,"text"],"phones":["1",2],"text":"gr\\u00fcn \\"q\\" 😀","nothing":null,"deep":{"email":"stays"}}',
        '{"email":null,"name":null,"home":"not an object","orders":{"to":"x"},"phones":null}',
        '{"email":{"secret":1}}',
        '{"email":5,"home":null}',
        '{"emai\\u006c":"written otherwise"}',
        "{}",
    ]
    command = [str(ROOT / ".runtime/venvs/spark/bin/python"), "-c", MASKED, json.dumps({"marks": marks, "texts": texts})]
    env = {**os.environ, "JAVA_HOME": str(java.home()), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = json.loads(done.stdout.splitlines()[-1])
    assert [subject for subject, _ in made] == [pseudonym("k", text) for text in texts]
    assert [json.loads(data) for _, data in made] == [masked(json.loads(text), tree(marks)["data"], "k") for text in texts]


def test_a_person_is_marked_and_then_erased_to_the_last_byte() -> None:
    # 16 characters, as many as Iceberg keeps of a least or greatest value.
    gone, other = (f"{name}{uuid.uuid4().hex[:12]}" for name in ("gone", "stay"))
    source, day = f"privacy-{uuid.uuid4().hex[:8]}", f"{datetime.now(UTC):%Y-%m-%d}"
    post(*life(source, gone, "2019-02-03"), *life(source, other, day))  # the days of the one have no other sales
    broken = f'{{"userId":"{gone}", "type":'
    headers, key = {"content-type": "application/json"}, (os.environ["HEADRACE_WRITE_KEY"], "")
    address = f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/track"
    assert httpx.post(address, content=broken, headers=headers, auth=key, timeout=30).status_code == 400
    until(lambda: landed(gone) and landed(other))
    until(lambda: broken in lakes.column("bronze.dead_letters", "payload"))
    run_dag(os.environ, "curate", 600)

    # Marked: what the plan says is nowhere but in bronze and in what was refused.
    [[email, name, data]] = sql(f"SELECT email, name, data_json FROM lake.silver.identify WHERE subject = '{gone}'")
    assert (email, name) == (pseudonym(os.environ["PRIVACY_KEY"], f"{gone}@mail.example"), None)
    assert json.loads(data) == {"email": email, "plan": "free", "note": f"said by {gone}"}
    mine = {"bool": {"filter": [{"term": {"subject": gone}}, {"term": {"type": "identify"}}]}}
    [hit] = Elasticsearch(os.environ["ELASTICSEARCH_URL"]).search(index="events_all", query=mine)["hits"]["hits"]
    assert hit["_source"]["data"] == json.loads(data)
    clear = holding(f"{gone}@mail.example", f"Name of {gone}")
    assert clear
    assert all("bronze" in each or "dead_letters" in each for each in clear), clear

    before, theirs = rows(gone), rows(other)
    assert {table for table, found in before.items() if found} >= {
        *("silver.identify", "silver.page_view", "silver.purchase", "silver.quarantine", "silver.dead_letters"),
        *("gold.fact_purchase", "gold.fact_page_view", "gold.fact_activity", "gold.fact_session", "gold.dim_customer"),
        *("gold.customer_features", "gold.customer_features_by_day", "gold.fact_prediction", "gold.prediction_truth"),
    }
    assert sql(f"SELECT count(*) FROM lake.gold.mart_daily_sales WHERE source = '{source}'") == [[2]]
    assert any("gold" in each for each in holding(gone))

    told = said(erase("--subject", gone, "--dry-run"))
    assert re.search(r"lake\.bronze\.events +4\b", told), told
    assert re.search(r"lake\.bronze\.dead_letters +2\b", told), told
    assert rows(gone) == before

    # Killed as soon as the first rows are gone, and run again.
    killed = erase("--subject", gone, "--yes")
    until(lambda: killed.poll() is not None or not sql(f"SELECT 1 FROM lake.silver.identify WHERE subject = '{gone}'"))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    # A curation that comes in between, and reads all of bronze once more, adds nothing of the person a second time.
    for work in ("optimize", "expire_snapshots(retention_threshold => '0s')"):
        sql(f"ALTER TABLE lake.bronze.events EXECUTE {work}")
    run_dag(os.environ, "curate", 600)
    assert sql("SELECT source, id FROM lake.silver.purchase GROUP BY 1, 2 HAVING count(*) > 1") == []
    # What was left behind is young, and so may be what the loader is about to name.
    refused = erase("--subject", gone, "--yes", "--orphans", "0s")
    assert "would delete files that the batch loader is about to name: stop it first" in refused.communicate(timeout=60)[1]
    with without_loader():
        told = said(erase("--subject", gone, "--yes", "--orphans", "0s"))
    assert set(re.findall(r"^lake\.\S+ .* -> (\d+)\s*$", told, re.MULTILINE)) == {"1"}, told
    assert re.search(r"events\.raw.* keeps its messages for \d+ days at most \(retention\.ms = \d+", told), told
    assert holding(gone) == set()
    assert documents(gone) == 0
    assert not any(rows(gone).values())
    assert rows(other) == theirs
    assert documents(other) >= 4

    # The second time there is nothing; what is recorded names nobody.
    assert "Nothing is left of that subject." in said(erase("--subject", gone, "--yes"))
    hashed = pseudonym(os.environ["PRIVACY_KEY"], gone)
    states = sql(f"SELECT state, found FROM lake.gold.erasures WHERE subject_hash = '{hashed}' ORDER BY at")
    assert [state for state, _ in states] == ["begun", "begun", "done", "done"]
    assert states[0][1] > 10
    assert states[-1][1] == 0

    # All goes on: what comes is loaded and curated, and gold's sums are right again.
    post(*({**each, "id": f"{each['id']}-more"} for each in life(source, other, day)))
    until(
        lambda: (
            lakes.column("bronze.events", "subject").count(other) == 8 and lakes.column("bronze.dead_letters", "subject").count(other) == 2
        )
    )
    run_dag(os.environ, "curate", 600)  # with the tests of gold: the sums of all its tables are those of silver
    now = {table: len(found) for table, found in rows(other).items() if found}
    assert now == {table: len(found) + (len(found) if table in DOUBLED else 0) for table, found in theirs.items() if found}
    assert sql(f"SELECT sales_date, purchases FROM lake.gold.mart_daily_sales WHERE source = '{source}'") == [
        [datetime.fromisoformat(day).date(), 2]
    ]
    assert holding(gone) == set()


def test_documents_that_elasticsearch_does_not_let_go_end_the_erasure() -> None:
    client = Elasticsearch(os.environ["ELASTICSEARCH_URL"], request_timeout=30)
    subject = uuid.uuid4().hex
    index, person = f"events-{subject}-2026.01.01", Person({subject: pseudonym("key", subject)})
    client.indices.create(index=index, aliases={"events_all": {}}, mappings={"properties": {"subject": {"type": "keyword"}}})
    try:
        client.index(index=index, document={"subject": subject}, refresh=True)
        client.indices.put_settings(index=index, settings={"index.blocks.write": True})
        with pytest.raises(Refused, match=rf"^{index}: .*blocked"):
            erase_documents(client, person, [], print)
        client.indices.put_settings(index=index, settings={"index.blocks.write": None})
        assert erase_documents(client, person, [], print) == {"events_all": 1, "dead_letters_all": 0}
        assert client.count(index=index)["count"] == 0
    finally:
        client.indices.delete(index=index)
