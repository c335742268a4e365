"""The real-time loader on a real Kafka and a real Elasticsearch."""

import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import msgspec
import pytest

from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason
from tests.integration.consumers import CLICK, ConsumerProcess, enriched_event, eventually, pair, produce, read_all, topics

pytestmark = pytest.mark.usefixtures("platform")


def search(alias: str, **term: str) -> list[dict[str, object]]:
    """All hits, of at most 10,000."""
    body = {"size": 10_000, "query": {"bool": {"filter": [{"term": {name: value}} for name, value in term.items()]}}}
    found = httpx.post(f"{os.environ['ELASTICSEARCH_URL']}/{alias}/_search?ignore_unavailable=true", json=body, timeout=30).json()
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


def elastic(method: str, path: str, **json: object) -> httpx.Response:
    return httpx.request(method, f"{os.environ['ELASTICSEARCH_URL']}/{path}", json=json or None, timeout=60)


@contextmanager
def days_of_their_own(*days: str) -> Iterator[list[str]]:
    """Indices of days that no platform writes to, and away again."""
    names = [f"events-button_click-{day}" for day in days]
    try:
        yield names
    finally:
        for name in names:
            elastic("DELETE", f"{name}?ignore_unavailable=true").raise_for_status()


def test_the_index_is_of_the_day_of_receipt_in_utc() -> None:
    source = uuid.uuid4().hex
    moments = {"last": "2001-02-28T23:59:59.999Z", "first": "2001-03-01T00:00:00.000Z"}
    with topics() as ours, days_of_their_own("2001.02.28", "2001.03.01") as (last, first), ConsumerProcess("realtime-loader", ours):
        produce(ours.enriched, [pair(enriched_event(id, source=source, received_at=moment)) for id, moment in moments.items()])
        eventually(
            lambda: {hit["_source"]["id"]: hit["_index"] for hit in search("events_all", source=source)},  # type: ignore[index]
            {"last": last, "first": first},
        )


@pytest.mark.parametrize(
    ("shut", "opened", "says"),
    [
        (
            ("_settings", {"index.blocks.read_only_allow_delete": True}),
            ("_settings", {"index.blocks.read_only_allow_delete": None}),
            "flood",
        ),
        (("_settings", {"index.blocks.write": True}), ("_settings", {"index.blocks.write": None}), "FORBIDDEN"),
        (("_close", {}), ("_open", {}), "closed"),
    ],
    ids=["429 (disk full)", "403 (read-only)", "400 (closed)"],
)
def test_items_that_elasticsearch_cannot_take_now_wait_while_the_others_are_done(
    shut: tuple[str, dict[str, object]], opened: tuple[str, dict[str, object]], says: str
) -> None:
    """A real refusal of some items only: one of two indices takes nothing."""
    source, at = uuid.uuid4().hex, "2001-02-03T12:00:00.000Z"
    with topics() as ours, days_of_their_own("2001.02.03") as (index,), ConsumerProcess("realtime-loader", ours) as loader:
        produce(ours.enriched, [pair(enriched_event("before", source=source, received_at=at))])
        eventually(lambda: len(search("events_all", source=source)), 1)
        elastic("PUT" if shut[0] == "_settings" else "POST", f"{index}/{shut[0]}", **shut[1]).raise_for_status()
        events = [enriched_event(f"e{n}", source=source, **({"received_at": at} if n % 2 else {})) for n in range(100)]
        produce(ours.enriched, map(pair, events))
        eventually(lambda: len(search("events_all", source=source)) >= 50, True)
        eventually(lambda: says in loader.said(), True)
        waiting = re.findall(r"(\d+) of (\d+) documents not taken now", loader.said())
        assert {int(few) for few, _ in waiting} <= set(range(1, 51))
        elastic("PUT" if opened[0] == "_settings" else "POST", f"{index}/{opened[0]}", **opened[1]).raise_for_status()
        eventually(lambda: len(search("events_all", source=source)), 101, 180)  # opening an index waits for its shard
        assert read_all(ours.dead_letter("loader")) == []
        assert loader.is_running()
