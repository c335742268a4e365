"""The real-time loader on a real Kafka and a real Elasticsearch."""

import hashlib
import os
import uuid

import httpx
import msgspec

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason
from tests.integration.consumers import CLICK, ConsumerProcess, enriched_event, eventually, pair, produce, read_all, topics


def search(alias: str, **term: str) -> list[dict[str, object]]:
    """All hits, of at most 10,000."""
    body = {"size": 10_000, "query": {"term": term}}
    found = httpx.post(f"{os.environ['ELASTICSEARCH_URL']}/{alias}/_search", json=body, timeout=30).json()
    hits: list[dict[str, object]] = found["hits"]["hits"]
    return hits


def letter(**changed: object) -> DeadLetter:
    values = {
        "dead_letter_id": dead_letter.new_id(),
        "service": "collector",
        "reason": Reason.UNPARSEABLE,
        "detail": "test",
        "rejected_at": event.now(),
        "payload": "{",
    }
    return msgspec.convert(values | changed, DeadLetter)


def test_events_and_dead_letters_are_searchable_under_the_aliases() -> None:
    source = uuid.uuid4().hex
    with topics() as ours, ConsumerProcess("realtime-loader", ours) as loader:
        produce(ours.enriched, [pair(enriched_event(f"e{n}", source=source)) for n in range(1000)])
        of_collector = letter(payload="x" * 500_000, detail="\u0000 and \ud7ff")
        produce(ours.dead_letter("collector"), [(b"", dead_letter.encode(of_collector)), (b"", b"no dead letter at all")])
        eventually(lambda: len(search("events_all", source=source)), 1000)
        hit = search("events_all", source=source)[0]
        document = hit["_source"]
        assert isinstance(document, dict)
        assert hit["_id"] == hashlib.sha256(event.identity_key(source, document["id"])).hexdigest()
        assert hit["_index"] == f"events-button_click-{document['received_at'][:10].replace('-', '.')}"
        assert document["data"] == msgspec.json.decode(CLICK)  # which has a line break in it
        assert (document["collector_id"], document["key_id"], document["protocol"]) == ("test", "k", "cloudevents")

        eventually(lambda: len(search("dead_letters_all", dead_letter_id=of_collector.dead_letter_id)), 1)
        garbage = dead_letter.id_at("realtime-loader", ours.dead_letter("collector"), 0, 1)
        eventually(lambda: len(search("dead_letters_all", dead_letter_id=garbage)), 1)
        assert loader.stop() == 0
        assert read_all(ours.dead_letter("loader")) == []


def test_the_first_sending_stays_and_a_repetition_is_no_error() -> None:
    source = uuid.uuid4().hex
    with topics() as ours, ConsumerProcess("realtime-loader", ours) as loader:
        texts = [b'{"button_id": "first"}', b'{"button_id": "second"}', b'{"button_id": "third"}']
        produce(ours.enriched, [pair(enriched_event("same", source=source, data=msgspec.Raw(text))) for text in texts])
        produce(ours.enriched, [pair(enriched_event("last", source=source))])
        eventually(lambda: len(search("events_all", source=source)), 2)
        loader.kill()
        loader.start()
        produce(ours.enriched, [pair(enriched_event("same", source=source, data=msgspec.Raw(texts[1])))])
        produce(ours.enriched, [pair(enriched_event("really last", source=source))])
        eventually(lambda: len(search("events_all", source=source)), 3)
        found = {hit["_source"]["id"]: hit["_source"]["data"] for hit in search("events_all", source=source)}  # type: ignore[index]
        assert found["same"] == {"button_id": "first"}
        assert read_all(ours.dead_letter("loader")) == []


def test_a_document_that_elasticsearch_refuses_is_dead_lettered_and_the_others_are_there() -> None:
    source = uuid.uuid4().hex
    no_object = msgspec.Raw(b'"text"')  # data is mapped as an object
    with topics() as ours, ConsumerProcess("realtime-loader", ours):
        events = [enriched_event(f"e{n}", source=source) for n in range(50)]
        events.insert(25, enriched_event("odd", source=source, data=no_object))
        produce(ours.enriched, map(pair, events))
        produce(ours.enriched, [(b"k", b"{}")])
        eventually(lambda: len(search("events_all", source=source)), 50)
        eventually(lambda: len(read_all(ours.dead_letter("loader"))), 2)
        letters = [dead_letter.decode(message.value()) for message in read_all(ours.dead_letter("loader"))]
        assert {of.reason for of in letters} == {Reason.DOCUMENT_REJECTED, Reason.UNPARSEABLE}
        refused = next(of for of in letters if of.reason is Reason.DOCUMENT_REJECTED)
        assert (refused.id, refused.source, refused.service) == ("odd", source, "realtime-loader")
        assert refused.payload_bytes() == pair(events[25])[1]
        eventually(lambda: len(search("dead_letters_all", dead_letter_id=refused.dead_letter_id)), 1)  # it loads its own refusals


def test_every_event_is_searchable_or_dead_lettered_whatever_its_data_is() -> None:
    source = uuid.uuid4().hex
    fit = [b'{"button_id": "%s"}' % (b"x" * 100_000), b"[]", b"null", b'{"button_id": null, "b.c": 1}', b'{"button_id": 7}']
    no_fit = [b'{"button_id": {"not": "text"}}', b'{"": 2}', b'{"button_id": [1, {"a": 2}]}', b"5", b'{"a":' * 1100 + b"1" + b"}" * 1100]
    with topics() as ours, ConsumerProcess("realtime-loader", ours):
        events = [enriched_event(f"e{n}", source=source, data=msgspec.Raw(data)) for n, data in enumerate(fit + no_fit)]
        produce(ours.enriched, map(pair, events))
        eventually(lambda: len(read_all(ours.dead_letter("loader"))), len(no_fit))
        eventually(lambda: len(search("events_all", source=source)), len(fit))
