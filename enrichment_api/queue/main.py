"""scoring.requests -> score in batches -> the reply topic of each | dead-letter.enricher, in transactions.

Start it: `python -m enrichment_api.queue.main`.

Nothing waits in memory but one batch: what comes faster than it is scored waits in Kafka, where the lag shows it.
"""

import sys
import threading
import time
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from enrichment_api.model import ModelError
from enrichment_api.queue.settings import WorkerSettings
from enrichment_api.queue.stage import REPLIES, REQUESTS, QueueStage
from enrichment_api.release import ReleaseError
from enrichment_api.settings import Settings
from enrichment_api.wiring import refresher_of, watch_of
from headrace import service
from headrace.batch import Limits, RejectLimit
from headrace.dead_letter import Unavailable
from headrace.kafka import admin_client, ensure_topics
from headrace.progress import TransactionProgress
from headrace.runner import Runner

NAME = "scoring-worker"
_LOOK_SECONDS = 5.0  # so often it is asked again for a topic that was not there


class Topics:
    """Which topics there are, asked where one is not known."""

    def __init__(self, admin: AdminClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._admin, self._clock = admin, clock
        self._known: set[str] = set()
        self._next = 0.0

    def exist(self, topic: str) -> bool:
        """Whether there is this topic. Raises Unavailable."""
        if topic not in self._known and self._clock() >= self._next:
            try:
                self._known = set(self._admin.list_topics(timeout=10).topics)
            except KafkaException as error:
                raise Unavailable(f"Kafka: which topics there are: {error.args[0].str()}") from None
            self._next = self._clock() + _LOOK_SECONDS
        return topic in self._known


def build(
    settings: WorkerSettings, models: Settings, stop: threading.Event, topics: service.Topics = service.PLATFORM
) -> Callable[[], None]:
    """All the parts, put together. Raises ModelError or ReleaseError."""
    admin = admin_client(settings.kafka_bootstrap_servers, settings.kafka_security)
    ensure_topics(admin, dict.fromkeys((topics.prefix + REQUESTS, topics.prefix + REPLIES), settings.partitions))
    watch, shadow = watch_of(models)
    refresher = refresher_of(models)
    shadow.start()
    watch.start()
    refresher.look()  # whoever is answered once is not asked again: the first batch knows its customers
    refresher.start()
    consumer = service.consumer(settings)
    producer = service.producer(settings, transactional_id=f"{settings.group}-{settings.instance}", transaction_timeout_ms=60_000)
    progress = TransactionProgress(consumer, producer, topics.dead_letter("enricher"))
    stage = QueueStage(lambda: watch.serving, lambda: refresher.customers, progress.publish, Topics(admin).exist, topics.prefix)
    return Runner(
        service=NAME,
        consumer=consumer,
        topics=[topics.prefix + REQUESTS],
        stage=stage,
        progress=progress,
        limits=Limits(settings.max_batch_messages, settings.max_batch_bytes, settings.max_batch_seconds),
        reject_limit=RejectLimit(settings.max_reject_share),
        stop=stop,
    ).run


def main(topics: service.Topics = service.PLATFORM) -> None:
    """Serve until SIGTERM."""
    settings, models = WorkerSettings.load(), Settings.load()

    def made(stop: threading.Event) -> Callable[[], None]:
        try:
            return build(settings, models, stop, topics)
        except (ModelError, ReleaseError) as error:
            sys.exit(f"{NAME}: {error} (settings ENRICHMENT_API_MODEL_DIR, ENRICHMENT_API_RELEASE_FILE)")

    service.run(NAME, settings, made)


if __name__ == "__main__":
    main()
