"""What the delivery tests need to know of each consumer and of each broker, so that the tests themselves know neither."""

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import httpx
import msgspec

from headrace import dead_letter
from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent, RawEvent
from headrace.service import Topics
from tests.collector_mock_kafka import MockKafka
from tests.collector_real_kafka import RealKafka
from tests.integration import consumers, lakes
from tests.integration.consumers import ConsumerProcess, Supervised, enriched_event, pair, raw_event, read_all

Pair = tuple[bytes, bytes]
_PURCHASE = {"type": "purchase", "dataschema": "purchase/1-0-0", "subject": "customer-1"}
_BOUGHT = msgspec.Raw(b'{"quantity": 2, "amount_usd": 9.99}')


class Broker(Protocol):
    """A Kafka that can go away and come back with what it had."""

    address: str
    transactional: bool

    def down(self) -> None: ...
    def up(self) -> None: ...


class RealBroker:
    """Kafka itself, killed and started again."""

    transactional = True

    def __init__(self, server: RealKafka) -> None:
        self.address, self.down, self.up = server.address, server.kill, server.start


class MockBroker:
    """librdkafka's in-process broker, which closes its connections and takes no new ones for a while."""

    transactional = False

    def __init__(self, broker: MockKafka) -> None:
        self.address, self.down, self.up = broker.address, broker.stop, broker.start
        self._make = broker.make_topic

    @contextmanager
    def topics(self, partitions: int) -> Iterator[Topics]:
        """As `consumers.topics`, for a broker that makes none on request."""
        ours = Topics(f"test-{uuid.uuid4().hex[:10]}.")
        for topic, count in {ours.raw: partitions, ours.enriched: partitions, **dict.fromkeys(ours.to_load[1:], 1)}.items():
            self._make(topic, count)
        yield ours


class Consumer:
    """One of the three services on topics (and a table, and an Elasticsearch source) of its own."""

    name: str
    settings: Mapping[str, str]
    needs: tuple[str, ...]  # settings with the addresses of what it depends on besides Kafka
    bad: Pair
    bad_reason: Reason
    reads_own_letters = 1  # it loads what it refused, too
    ends_by: str  # where and how a poison message ends it

    def __init__(self, ours: Topics, broker: Broker) -> None:
        self.ours = ours
        self.broker = broker
        self.source = uuid.uuid4().hex
        self.namespace = f"bronze_test_{uuid.uuid4().hex[:8]}"

    @property
    def reads(self) -> str:
        """The topic that the tests write to."""
        return self.ours.enriched

    @property
    def refuses_to(self) -> str:
        """The topic of its dead letters."""
        return self.ours.dead_letter("loader")

    @property
    def keeps_place(self) -> bool:
        """Whether this broker keeps what it commits."""
        return True

    def process(self, instance: str = "0", **settings: str) -> ConsumerProcess:
        return ConsumerProcess(self.name, self.ours, instance, self.namespace, **{**self.settings, **settings})

    def supervised(self, **settings: str) -> Supervised:
        return Supervised(self.name, self.ours, "0", self.namespace, **{**self.settings, **settings})

    def event(self, id: str) -> RawEvent | EnrichedEvent:
        return enriched_event(id, source=self.source)

    def produce(self, ids: Sequence[str]) -> None:
        consumers.produce(self.reads, [pair(self.event(id)) for id in ids])

    def arrived(self) -> list[str]:
        """The id of each event where the service brings it: sorted, a doubled one twice."""
        raise NotImplementedError

    def letters(self) -> list[DeadLetter]:
        return [dead_letter.decode(message.value()) for message in read_all(self.refuses_to)]

    def end(self) -> None:
        """Nothing is left behind."""


class Enricher(Consumer):
    name = "enricher"
    settings: Mapping[str, str] = MappingProxyType({"ENRICHER_MAX_BATCH_MESSAGES": "100"})
    needs = ("ENRICHMENT_API_URL",)
    bad = pair(raw_event("bad", type="no_such_type"))
    bad_reason = Reason.UNKNOWN_TYPE
    reads_own_letters = 0
    ends_by = "parse segfault"

    def __init__(self, ours: Topics, broker: Broker) -> None:
        super().__init__(ours, broker)
        self._folder = tempfile.TemporaryDirectory()
        self.settings = {**self.settings, "SCHEMAS_DIR": consumers.scores_required(Path(self._folder.name))}

    def end(self) -> None:
        self._folder.cleanup()

    @property
    def keeps_place(self) -> bool:
        return self.broker.transactional

    @property
    def reads(self) -> str:
        return self.ours.raw

    @property
    def refuses_to(self) -> str:
        return self.ours.dead_letter("enricher")

    def event(self, id: str) -> RawEvent:
        return raw_event(id, source=self.source, data=_BOUGHT, **_PURCHASE)  # the enrichment API is asked for these

    def arrived(self) -> list[str]:
        return sorted(consumers.ids_in(self.ours.enriched))


class Realtime(Consumer):
    name = "realtime-loader"
    settings: Mapping[str, str] = MappingProxyType(
        {"REALTIME_LOADER_MAX_BATCH_MESSAGES": "100", "REALTIME_LOADER_MAX_BATCH_SECONDS": "0.2"}
    )
    needs = ("ELASTICSEARCH_URL",)
    bad = (b"bad", b"{}")
    bad_reason = Reason.UNPARSEABLE
    ends_by = "deliver exception"

    def arrived(self) -> list[str]:
        body = {"size": 10_000, "query": {"term": {"source": self.source}}, "_source": ["id"]}
        url = f"{os.environ['ELASTICSEARCH_URL']}/events_all/_search?ignore_unavailable=true"  # another test may have closed an index
        found = httpx.post(url, json=body, timeout=30).json()
        return sorted(hit["_source"]["id"] for hit in found["hits"]["hits"])


class Batch(Consumer):
    name = "batch-loader"
    settings: Mapping[str, str] = MappingProxyType({"BATCH_LOADER_MAX_ROWS": "500", "BATCH_LOADER_MAX_AGE_SECONDS": "0.3"})
    needs = ("LAKE_CATALOG_URL", "S3_ENDPOINT")
    bad = (b"bad", b"{}")
    bad_reason = Reason.UNPARSEABLE
    ends_by = "deliver kill"

    def arrived(self) -> list[str]:
        return sorted(lakes.column(f"{self.namespace}.events", "id"))

    def end(self) -> None:
        lakes.drop(self.namespace)
