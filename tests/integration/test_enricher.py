"""The enricher on a real Kafka (and the real enrichment API): exactly once, whatever is killed or away."""

import json
import os

import msgspec

from headrace import dead_letter, event
from tests.integration.consumers import (
    CLICK,
    ConsumerProcess,
    Gate,
    eventually,
    pair,
    produce,
    raw_event,
    read_all,
    topics,
)


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


def test_an_enrichment_api_that_is_away_delays_events_and_dead_letters_none() -> None:
    gate = Gate(os.environ["ENRICHMENT_API_URL"])
    purchase = {"type": "purchase", "dataschema": "purchase/1-0-0", "subject": "customer-1"}
    data = msgspec.Raw(b'{"quantity": 2, "amount_usd": 9.99}')
    with topics() as ours, ConsumerProcess("enricher", ours, ENRICHMENT_API_URL=gate.url) as enricher:
        produce(ours.raw, [pair(raw_event(f"p{n}", data=data, **purchase)) for n in range(30)])
        eventually(lambda: "enrichment API" in enricher.said(), True)
        produce(ours.raw, [pair(raw_event(f"c{n}")) for n in range(30)])  # arrive while it waits
        assert read_all(ours.enriched) == []
        gate.open()
        eventually(lambda: len(read_all(ours.enriched)), 60)
        gate.shut()
        produce(ours.raw, [pair(raw_event(f"p{n}", data=data, **purchase)) for n in range(30, 60)])
        eventually(lambda: enricher.said().count('"unavailable: waiting"') > 1, True)
        gate.open()
        eventually(lambda: len(read_all(ours.enriched)), 90)
        gate.shut()

        found = [event.decode_enriched(message.value()) for message in read_all(ours.enriched)]
        assert sorted(of.id for of in found) == sorted([f"p{n}" for n in range(60)] + [f"c{n}" for n in range(30)])
        scores = [json.loads(bytes(of.enrichment))["repurchase"]["score"] for of in found if of.type == "purchase"]
        assert all(0 <= score <= 1 for score in scores)
        assert {bytes(of.enrichment) for of in found if of.type == "button_click"} == {b"{}"}
        assert read_all(ours.dead_letter("enricher")) == []


def test_it_stops_where_nearly_all_would_be_rejected() -> None:
    with topics() as ours, ConsumerProcess("enricher", ours) as enricher:
        produce(ours.raw, [pair(raw_event(f"e{n}", data=msgspec.Raw(b"{}"))) for n in range(3000)])
        assert enricher.exit_code() == 1
        assert '"too many rejects"' in enricher.said()
        assert "Traceback" not in enricher.said()
        assert len(read_all(ours.dead_letter("enricher"))) < 1000
