"""An event type is added by files alone: a line in the tracking plan, a schema, examples; then `make up`."""

import json
import os
import uuid
from pathlib import Path

import pytest
import yaml
from elasticsearch import Elasticsearch

from cli.airflow import run_dag
from tests.e2e.conftest import ROOT, eventually, headrace, post_event, rows, run, take_up_the_plan

pytestmark = pytest.mark.usefixtures("platform")

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A product was put on the wish list",
    "type": "object",
    "properties": {
        "product_id": {"type": "string", "maxLength": 100, "description": "Id of the product."},
        "wanted_by": {"type": "string", "format": "date-time", "description": "When it is wanted."},
        "how_many": {"type": "integer", "minimum": 1, "description": "How many."},
        "gift": {"type": "boolean", "description": "Whether it is for somebody else."},
    },
    "required": ["product_id", "how_many"],
}


@pytest.mark.timeout(900)
def test_files_are_enough(search: Elasticsearch) -> None:
    type = f"wish_{uuid.uuid4().hex[:8]}"
    schemas = ROOT / os.environ["SCHEMAS_DIR"]
    assert schemas != ROOT / "schemas", "the platform of the tests has a tracking plan of its own"
    add_type(schemas, type)
    checked = run(headrace("schemas", "check", "--schemas", str(schemas)))
    assert checked.returncode == 0, checked.stdout
    take_up_the_plan()

    good, bad = f"good-{type}", f"bad-{type}"
    event = {"source": "my-app", "type": type, "time": "2026-01-31T12:00:00Z"}
    data = {"product_id": "cd-17", "how_many": 2, "wanted_by": "2026-12-24T18:00:00+01:00", "gift": True}
    assert post_event({**event, "id": good, "data": data})["accepted"] == 1
    assert post_event({**event, "id": bad, "data": {"product_id": "cd-17", "how_many": 0}})["accepted"] == 1

    hits = eventually(lambda: search.search(index="events_all", query={"term": {"id": good}})["hits"]["hits"])
    assert [hit["_source"]["data"] for hit in hits] == [data]
    by_field = search.search(index=f"events-{type}-*", query={"range": {"data.how_many": {"gte": 2}}})
    assert [hit["_source"]["id"] for hit in by_field["hits"]["hits"]] == [good]
    refused = eventually(lambda: search.search(index="dead_letters_all", query={"term": {"id": bad}})["hits"]["hits"])
    assert [hit["_source"]["reason"] for hit in refused] == ["schema_invalid"]

    landed = "SELECT id FROM lake.bronze.events WHERE type = '{}'".format(type)  # noqa: UP032
    assert eventually(lambda: rows(landed)) == [[good]]
    run_dag(dict(os.environ), "curate", within=600)
    found = rows(f"SELECT id, product_id, how_many, gift, to_iso8601(wanted_by) FROM lake.silver.{type}")
    assert [row[:4] for row in found] == [[good, "cd-17", 2, True]]
    assert found[0][4].startswith("2026-12-24T17:00:00")


def add_type(schemas: Path, type: str) -> None:
    """What a person does who adds an event type."""
    plan = schemas / "tracking_plan.yaml"
    line = {type: {"version": "1-0-0", "owner": "shop", "purpose": "What customers wish for."}}
    plan.write_text(plan.read_text() + "".join(f"  {text}\n" for text in yaml.safe_dump(line).splitlines()))
    (schemas / type).mkdir()
    (schemas / type / "1-0-0.json").write_text(json.dumps(SCHEMA))
    examples = schemas / "examples" / type
    examples.mkdir()
    (examples / "1-0-0.two.pass.json").write_text('{"product_id": "cd-17", "how_many": 2}')
    (examples / "1-0-0.none.fail.json").write_text('{"product_id": "cd-17", "how_many": 0}')
