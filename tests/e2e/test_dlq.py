"""A dead letter is work: the schema is mended, the letter replayed, and the event is in silver, once."""

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elasticsearch import Elasticsearch
from typer.testing import CliRunner

from cli.__main__ import app
from cli.airflow import run_dag
from headrace import replays
from tests.e2e.conftest import ROOT, eventually, post_event, rows, take_up_the_plan
from tests.e2e.test_new_event_type import add_type

pytestmark = pytest.mark.usefixtures("platform")


def dlq(*arguments: str) -> str:
    """What a command of `headrace dlq` prints."""
    done = CliRunner().invoke(app, ["dlq", *arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def replay(source: str, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dlq("replay", "--json", "--source", source, *arguments))
    return {name: found[name] for name in ("replayed", "refused", "looping", "done before")}


def letters(source: str) -> list[dict[str, Any]]:
    """Those of a source, the newest first."""
    return [json.loads(line) for line in dlq("list", "--json", "--source", source).splitlines()]


@pytest.fixture
def alias() -> Iterator[Path]:
    """The schema of `alias`, which no other test needs; as it was, afterwards."""
    path = ROOT / os.environ["SCHEMAS_DIR"] / "alias" / "1-0-0.json"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


@pytest.mark.timeout(900)
def test_once_the_schema_is_mended_a_replay_brings_the_events_to_silver_once(search: Elasticsearch, alias: Path) -> None:
    """One event is of a type that is not there yet: the collector refuses it. The schema of the other is too strict for the enricher."""
    type = f"late_{uuid.uuid4().hex[:8]}"
    source = f"app-of-{type}"
    schemas = ROOT / os.environ["SCHEMAS_DIR"]
    assert schemas != ROOT / "schemas", "the platform of the tests has a tracking plan of its own"
    event = {"source": source, "subject": "c1", "time": "2026-01-31T12:00:00Z"}
    unknown = post_event({**event, "type": type, "id": "unknown", "data": {"product_id": "cd-17", "how_many": 3}})
    assert [one["reason"] for one in unknown["rejected"]] == ["unknown_type"]
    assert post_event({**event, "type": "alias", "id": "strict", "data": {"previous": "c0"}})["accepted"] == 1
    found = eventually(lambda: letters(source), lambda found: len(found) == 2)
    assert {one["id"]: (one["service"], one["reason"]) for one in found} == {
        "unknown": ("collector", "unknown_type"),
        "strict": ("enricher", "schema_invalid"),
    }
    assert replay(source, "--dry-run") == {"replayed": 0, "refused": 2, "looping": 0, "done before": 0}

    add_type(schemas, type)
    schema = json.loads(alias.read_text())
    del schema["required"]
    alias.write_text(json.dumps(schema))
    take_up_the_plan()
    assert replay(source) == {"replayed": 2, "refused": 0, "looping": 0, "done before": 0}
    assert replay(source) == {"replayed": 0, "refused": 0, "looping": 0, "done before": 2}

    origins = {one["id"]: (one["dead_letter_id"], 1) for one in found}
    documents = eventually(lambda: in_elasticsearch(search, source), lambda found: len(found) == 2)
    assert {one["id"]: one["data"] for one in documents} == {
        "unknown": {"product_id": "cd-17", "how_many": 3},
        "strict": {"previous": "c0"},
    }
    landed = eventually(lambda: rows(f"SELECT id, collector_id FROM lake.bronze.events WHERE source = '{source}'"), lambda r: len(r) == 2)
    assert {id: replays.origin_of(collector_id) for id, collector_id in landed} == origins
    run_dag(dict(os.environ), "curate", within=600)
    assert sorted(rows(f"SELECT id FROM lake.silver.events WHERE source = '{source}'")) == [["strict"], ["unknown"]]
    received = {one["id"]: one["rejected_at"] for one in found}
    for table in (type, "alias"):
        ((id, collector_id, received_at),) = rows(
            f"SELECT id, collector_id, to_iso8601(received_at) FROM lake.silver.{table} WHERE source = '{source}'"
        )
        assert replays.origin_of(collector_id) == origins[id]
        assert received_at[:19] <= received[id][:19], "when it was received, not when it was replayed"
    assert rows(f"SELECT count(*) FROM lake.silver.dead_letters WHERE source = '{source}'") == [[2]]


def in_elasticsearch(search: Elasticsearch, source: str) -> list[dict[str, Any]]:
    hits = search.search(index="events_all", query={"term": {"source": source}})["hits"]["hits"]
    return [hit["_source"] for hit in hits]
