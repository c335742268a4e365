"""events.raw -> validate -> score -> events.enriched | dead-letter.enricher, in transactions."""

import threading
from collections.abc import Callable

from enricher.breaker import CircuitBreaker
from enricher.client import EnrichmentApi
from enricher.settings import EnricherSettings
from enricher.stage import EnricherStage
from headrace import service
from headrace.batch import Limits, RejectLimit
from headrace.progress import TransactionProgress
from headrace.registry import Registry
from headrace.runner import Runner

NAME = "enricher"


def build(settings: EnricherSettings, stop: threading.Event, topics: service.Topics = service.PLATFORM) -> Callable[[], None]:
    """All the parts, put together."""
    consumer = service.consumer(settings)
    producer = service.producer(settings, transactional_id=f"{settings.group}-{settings.instance}", transaction_timeout_ms=60_000)
    progress = TransactionProgress(consumer, producer, topics.dead_letter(NAME))
    breaker = CircuitBreaker(settings.breaker_failures, settings.breaker_seconds)
    api = EnrichmentApi(settings.enrichment_api_url, settings.scoring_timeout_seconds, breaker)
    stage = EnricherStage(Registry.load(settings.schemas_dir), api, progress.publish, topics.enriched)
    return Runner(
        service=NAME,
        consumer=consumer,
        topics=[topics.raw],
        stage=stage,
        progress=progress,
        limits=Limits(settings.max_batch_messages, settings.max_batch_bytes, settings.max_batch_seconds),
        reject_limit=RejectLimit(settings.max_reject_share),
        stop=stop,
    ).run


if __name__ == "__main__":
    settings = EnricherSettings.load()
    service.run(NAME, settings, lambda stop: build(settings, stop))
