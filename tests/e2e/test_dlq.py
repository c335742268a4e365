"""A dead letter is work: the schema is mended, the letter replayed, and the event is in silver, once."""

import json
import os
import uuid
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from cli.airflow import run_dag
from headrace import replays
from tests.e2e.conftest import ROOT, eventually, headrace, post_event, rows, run
from tests.e2e.test_new_event_type import SCHEMA, add_type


def replay(*arguments: str) -> dict[str, Any]:
    done = run([*headrace("dlq", "replay", "--json", *arguments)])
    assert done.returncode == 0, done.stdout
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name: found[name] for name in ("replayed", "refused", "looping", "done before")}


def letters(type: str) -> list[dict[str, Any]]:
    done = run(headrace("dlq", "list", "--json", "--type", type))
    assert done.returncode == 0, done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(600)
def test_once_the_schema_is_mended_a_replay_brings_the_events_to_silver_once(search: Elasticsearch) -> None:
    """The type is unknown at first: the collector refuses it. Then its schema is too strict: the enricher refuses what it should not."""
    type = f"late_{uuid.uuid4().hex[:8]}"
    schemas = ROOT / os.environ["SCHEMAS_DIR"]
    assert schemas != ROOT / "schemas", "the platform of the tests has a tracking plan of its own"
    event = {"source": "my-app", "type": type, "time": "2026-01-31T12:00:00Z"}
    data = {"product_id": "cd-17", "how_many": 0}
    unknown = post_event({**event, "id": f"unknown-{type}", "data": data | {"how_many": 3}})
    assert [one["reason"] for one in unknown["rejected"]] == ["unknown_type"]

    add_type(schemas, type)
    assert (up := run(["make", "up"])).returncode == 0, up.stdout[-3000:]
    assert post_event({**event, "id": f"strict-{type}", "data": data})["accepted"] == 1
    found = eventually(lambda: letters(type), lambda found: len(found) == 2)
    assert [(one["service"], one["reason"]) for one in found] == [("enricher", "schema_invalid"), ("collector", "unknown_type")]
    assert replay("--type", type, "--dry-run") == {"replayed": 1, "refused": 1, "looping": 0, "done before": 0}

    mended = json.loads(json.dumps(SCHEMA))
    mended["properties"]["how_many"]["minimum"] = 0
    (schemas / type / "1-0-0.json").write_text(json.dumps(mended))
    (schemas / "examples" / type / "1-0-0.none.fail.json").unlink()
    assert (up := run(["make", "up"])).returncode == 0, up.stdout[-3000:]
    assert replay("--type", type) == {"replayed": 2, "refused": 0, "looping": 0, "done before": 0}
    assert replay("--type", type) == {"replayed": 0, "refused": 0, "looping": 0, "done before": 2}

    wanted = {f"unknown-{type}": 3, f"strict-{type}": 0}
    origins = {one["id"]: (one["dead_letter_id"], one["rejected_at"]) for one in found}
    documents = eventually(lambda: in_elasticsearch(search, type), lambda found: len(found) == 2)
    assert {one["id"]: one["data"]["how_many"] for one in documents} == wanted
    landed = eventually(lambda: rows(f"SELECT id, collector_id FROM lake.bronze.events WHERE type = '{type}'"), lambda r: len(r) == 2)
    assert {id: replays.origin_of(collector_id) for id, collector_id in landed} == {id: (of[0], 1) for id, of in origins.items()}
    run_dag(dict(os.environ), "curate", within=300)
    silver = rows(f"SELECT id, how_many, collector_id, to_iso8601(received_at) FROM lake.silver.{type}")
    assert {row[0]: row[1] for row in silver} == wanted
    assert len(silver) == len(wanted), "once"
    assert rows(f"SELECT count(*) FROM lake.silver.events WHERE type = '{type}'") == [[len(wanted)]]
    for id, _, collector_id, received_at in silver:
        assert replays.origin_of(collector_id) == (origins[id][0], 1)
        assert received_at[:19] <= origins[id][1][:19], "when it was received, not when it was replayed"
    assert rows(f"SELECT count(*) FROM lake.silver.dead_letters WHERE type = '{type}'") == [[2]]


def in_elasticsearch(search: Elasticsearch, type: str) -> list[dict[str, Any]]:
    hits = search.search(index="events_all", query={"term": {"type": type}})["hits"]["hits"]
    return [hit["_source"] for hit in hits]
