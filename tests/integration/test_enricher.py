"""The enricher on a real Kafka (and the real enrichment API): exactly once, whatever is killed or away."""

import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from headrace import dead_letter, event
from tests.integration.consumers import (
    CLICK,
    ConsumerProcess,
    Gate,
    duplicates,
    eventually,
    ids_in,
    pair,
    produce,
    raw_event,
    read_all,
    scores_required,
    topics,
)
from tests.integration.lakes import catalog, namespace
from tests.integration.test_batch_loader import places
from tests.integration.test_realtime_loader import search
from tests.scripted_enrichment_api import Json, scripted_api, well

pytestmark = pytest.mark.usefixtures("platform")


def test_valid_events_go_out_with_their_bytes_and_bad_ones_are_dead_lettered_with_a_reason() -> None:
    bad = {
        b"no-json": (b"\xff{", "unparseable"),
        b"no-event": (b'{"id": 5}', "malformed"),
        b"type": (pair(raw_event("b1", type="no_such_type"))[1], "unknown_type"),
        b"subject": (pair(raw_event("b2", type="login", dataschema="login/1-0-0"))[1], "missing_attribute"),
        b"schema": (pair(raw_event("b3", dataschema="button_click/9-0-0"))[1], "unknown_schema"),
        b"time": (pair(raw_event("b4", time="yesterday"))[1], "invalid_attribute"),
        b"data": (pair(raw_event("b5", data=msgspec.Raw(b'{"button_id": ""}')))[1], "schema_invalid"),
        b"empty": (b"", "unparseable"),
    }
    with topics() as ours, ConsumerProcess("enricher", ours) as enricher:
        produce(ours.raw, [pair(raw_event(f"good-{n}")) for n in range(20)])
        produce(ours.raw, [(key, value) for key, (value, _) in bad.items()])
        produce(ours.raw, [pair(raw_event(f"good-{n}")) for n in range(20, 40)])
        eventually(lambda: len(read_all(ours.enriched)), 40)
        eventually(lambda: len(read_all(ours.dead_letter("enricher"))), len(bad))

        out = read_all(ours.enriched)
        assert sorted(event.decode_enriched(message.value()).id for message in out) == sorted(f"good-{n}" for n in range(40))
        assert {bytes(event.decode_enriched(message.value()).data) for message in out} == {CLICK}
        assert {message.key() for message in out} == {event.identity_key("consumers-test", f"good-{n}") for n in range(40)}

        letters = [dead_letter.decode(message.value()) for message in read_all(ours.dead_letter("enricher"))]
        assert sorted(letter.reason.value for letter in letters) == sorted(reason for _, reason in bad.values())
        assert sorted(letter.payload_bytes() for letter in letters) == sorted(value for value, _ in bad.values())
        by_reason = {letter.reason.value: letter for letter in letters}
        assert (by_reason["unknown_type"].id, by_reason["unknown_type"].key_id) == ("b1", "k")
        assert {letter.service for letter in letters} == {"enricher"}
        assert enricher.stop() == 0


PURCHASE = {
    "type": "purchase",
    "dataschema": "purchase/1-0-0",
    "subject": "customer-1",
    "data": msgspec.Raw(b'{"quantity": 2, "amount_usd": 9.99}'),
}


def enrichments(topic: str) -> dict[str, Any]:
    """The enrichment of each event, by id."""
    found = [event.decode_enriched(message.value()) for message in read_all(topic)]
    assert duplicates([of.id for of in found]) == []
    return {of.id: json.loads(bytes(of.enrichment)) for of in found}


def test_while_the_enrichment_api_is_away_required_scores_are_waited_for_and_nothing_is_dead_lettered(tmp_path: Path) -> None:
    gate = Gate(os.environ["ENRICHMENT_API_URL"])
    waiting = {
        "ENRICHMENT_API_URL": gate.url,
        "SCHEMAS_DIR": scores_required(tmp_path),
        "ENRICHER_BREAKER_SECONDS": "0.5",
        "ENRICHER_MAX_BATCH_SECONDS": "2",
    }
    clicks, purchases = [f"c{n}" for n in range(1530)], [f"p{n}" for n in range(60)]
    with topics(1) as ours, ConsumerProcess("enricher", ours, **waiting) as enricher:
        # In one batch, the first thousand are in the transaction before it turns out that the purchases behind them have to wait.
        produce(ours.raw, [*(pair(raw_event(id)) for id in clicks[:1500]), *(pair(raw_event(id, **PURCHASE)) for id in purchases[:30])])
        eventually(lambda: '"unavailable: waiting"' in enricher.said(), True)
        produce(ours.raw, [pair(raw_event(id)) for id in clicks[1500:]])  # arrive while it waits
        assert not set(purchases) & set(ids_in(ours.enriched))
        gate.open()
        eventually(lambda: len(read_all(ours.enriched)), 1560)
        gate.shut()
        produce(ours.raw, [pair(raw_event(id, **PURCHASE)) for id in purchases[30:]])
        eventually(lambda: enricher.said().count('"unavailable: waiting"') > 1, True)
        gate.open()
        eventually(lambda: len(read_all(ours.enriched)), 1590)
        gate.shut()

        found = enrichments(ours.enriched)
        assert sorted(found) == sorted(clicks + purchases)
        assert all(0 <= found[id]["repurchase"]["score"] <= 1 for id in purchases)
        assert [found[id] for id in clicks] == [{}] * len(clicks)
        assert read_all(ours.dead_letter("enricher")) == []


def test_while_the_enrichment_api_is_away_events_go_on_without_optional_scores_and_say_so_in_every_store() -> None:
    gate = Gate(os.environ["ENRICHMENT_API_URL"])
    source = uuid.uuid4().hex
    purchase = {
        **PURCHASE,
        "source": source,
        "received_at": "2001-02-03T04:05:06.789Z",
    }  # an index with today's template, not with an older one
    with (
        topics() as ours,
        namespace() as bronze,
        ConsumerProcess(
            "enricher", ours, ENRICHMENT_API_URL=gate.url, ENRICHER_BREAKER_FAILURES="1", ENRICHER_BREAKER_SECONDS="0.5"
        ) as enricher,
        ConsumerProcess("realtime-loader", ours),
        ConsumerProcess("batch-loader", ours, namespace=bronze, BATCH_LOADER_MAX_AGE_SECONDS="1"),
    ):
        for n, id in enumerate(("away", "open"), 1):  # one failed batch opens the circuit
            produce(ours.raw, [pair(raw_event(id, **purchase))])
            eventually(lambda: len(read_all(ours.enriched)), n)
        gate.open()
        probes = 0
        while "answers again" not in enricher.said():
            assert probes < 60
            produce(ours.raw, [pair(raw_event(f"probe{probes}", **purchase))])
            probes += 1
            time.sleep(0.3)
        produce(ours.raw, [pair(raw_event("back", **purchase))])
        count = 3 + probes
        eventually(lambda: len(read_all(ours.enriched)), count)
        gate.shut()

        found = enrichments(ours.enriched)
        assert found["away"] == {"repurchase": None, "enrichment_skipped": {"repurchase": "no_answer"}}
        assert found["open"] == {"repurchase": None, "enrichment_skipped": {"repurchase": "circuit_open"}}
        assert 0 <= found["back"]["repurchase"]["score"] <= 1
        assert "enrichment_skipped" not in found["back"]
        assert read_all(ours.dead_letter("enricher")) == []

        eventually(lambda: len(search("events_all", source=source)), count)
        skipped = sorted(id for id, of in found.items() if "enrichment_skipped" in of)
        query = {"bool": {"filter": [{"term": {"source": source}}, {"exists": {"field": "enrichment.enrichment_skipped.repurchase"}}]}}
        url = f"{os.environ['ELASTICSEARCH_URL']}/events_all/_search"
        hits = httpx.post(url, json={"size": 100, "query": query}).json()["hits"]["hits"]
        assert sorted(hit["_source"]["id"] for hit in hits) == skipped
        assert {hit["_source"]["id"]: hit["_source"]["enrichment"] for hit in hits} == {id: found[id] for id in skipped}

        eventually(lambda: len(places(f"{bronze}.events")), count)
        rows = catalog().load_table(f"{bronze}.events").scan(selected_fields=("id", "enrichment")).to_arrow().to_pylist()
        assert {row["id"]: json.loads(row["enrichment"]) for row in rows} == found
        assert read_all(ours.dead_letter("loader")) == []


def test_killed_while_a_slow_enrichment_api_scores_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """The transaction is open during scoring: what it holds already must never be seen."""

    def slow(connection: socket.socket, events: list[Json]) -> None:
        time.sleep(0.25)
        well(connection, events)

    wanted = [f"p{n}" for n in range(3000)]
    with (
        scripted_api(slow) as api,
        topics() as ours,
        ConsumerProcess(
            "enricher", ours, ENRICHMENT_API_URL=api.url, ENRICHER_MAX_BATCH_MESSAGES="500", SCHEMAS_DIR=scores_required(tmp_path)
        ) as enricher,
    ):
        produce(ours.raw, (pair(raw_event(id, **PURCHASE)) for id in wanted))
        for _ in range(2):
            api.asked.clear()
            eventually(lambda: len(api.asked) > 1, True)
            enricher.kill()  # its request is not answered yet
            enricher.start()
        eventually(lambda: len(read_all(ours.enriched)), len(wanted))
        found = enrichments(ours.enriched)
        assert set(found) == set(wanted)
        assert {of["repurchase"]["score"] for of in found.values()} == {0.5}
        assert read_all(ours.dead_letter("enricher")) == []


def test_it_stops_where_nearly_all_would_be_rejected() -> None:
    with topics() as ours, ConsumerProcess("enricher", ours) as enricher:
        produce(ours.raw, [pair(raw_event(f"e{n}", data=msgspec.Raw(b"{}"))) for n in range(3000)])
        assert enricher.exit_code() == 1
        assert '"too many rejects"' in enricher.said()
        assert "Traceback" not in enricher.said()
        assert len(read_all(ours.dead_letter("enricher"))) < 1000
