"""events.enriched and dead-letter.* -> documents -> Elasticsearch | dead-letter.loader."""

import threading
from collections.abc import Callable

from headrace import service
from headrace.batch import Limits, RejectLimit
from headrace.progress import GroupProgress
from headrace.registry import Registry
from headrace.runner import Runner
from headrace.search import client
from loaders.realtime.mapping import Marks, templates
from loaders.realtime.search import Search
from loaders.realtime.settings import RealtimeLoaderSettings
from loaders.realtime.stage import SERVICE, RealtimeStage


def build(settings: RealtimeLoaderSettings, stop: threading.Event, topics: service.Topics = service.PLATFORM) -> Callable[[], None]:
    """All the parts, put together."""
    registry = Registry.load(settings.schemas_dir)
    wanted = templates(registry)
    marks = Marks({name: of.marks for name, of in registry.types.items()}, settings.privacy_key.get_secret_value())
    search = Search(client(settings))
    consumer = service.consumer(settings)
    progress = GroupProgress(consumer, service.producer(settings), topics.dead_letter("loader"))
    return Runner(
        service=SERVICE,
        consumer=consumer,
        topics=topics.to_load,
        stage=RealtimeStage(search, topics.enriched, marks),
        progress=progress,
        prepare=lambda: search.prepare(wanted),
        limits=Limits(settings.max_batch_messages, settings.max_batch_bytes, settings.max_batch_seconds),
        reject_limit=RejectLimit(settings.max_reject_share),
        stop=stop,
    ).run


if __name__ == "__main__":
    settings = RealtimeLoaderSettings.load()
    service.run(SERVICE, settings, lambda stop: build(settings, stop))
