"""What the README promises a newcomer: an event posted with curl can be found."""

import json
import os
import uuid

import pytest
from elasticsearch import Elasticsearch

from tests.e2e.conftest import eventually, run

pytestmark = pytest.mark.usefixtures("platform")


def test_an_event_posted_with_curl_is_in_elasticsearch(search: Elasticsearch) -> None:
    id = f"curl-{uuid.uuid4()}"
    event = {"specversion": "1.0", "id": id, "source": "my-app", "type": "purchase", "subject": "customer-7"}
    event |= {"time": "2026-01-31T12:00:00Z", "data": {"quantity": 1, "amount_usd": 14.99}}  # type: ignore[dict-item]
    address = f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/events"
    headers = ["-H", "content-type: application/cloudevents+json"]
    done = run(["curl", "-sS", "-u", f"{os.environ['HEADRACE_WRITE_KEY']}:", address, *headers, "-d", json.dumps(event)])
    assert json.loads(done.stdout) == {"accepted": 1, "rejected": []}

    hits = eventually(lambda: search.search(index="events_all", query={"term": {"id": id}})["hits"]["hits"])
    assert len(hits) == 1
    document = hits[0]["_source"]
    assert document["type"] == "purchase"
    assert document["subject"] == "customer-7"
    assert document["data"] == {"quantity": 1, "amount_usd": 14.99}
    score = document["enrichment"]["repurchase"]["score"]
    assert 0 < score < 1
    assert document["enrichment"]["repurchase"]["version"]
