"""events.enriched and dead-letter.* -> rows -> lake.bronze, with the offsets in the same commit."""

import threading
from collections.abc import Callable

from headrace import lake, service
from headrace.batch import Limits, RejectLimit
from headrace.runner import Runner
from loaders.batch import rows
from loaders.batch.row_batch import RowBatch
from loaders.batch.settings import BatchLoaderSettings
from loaders.batch.stage import SERVICE, LakeStage
from loaders.batch.table import BronzeTable, open_table

_READ_AHEAD_KB = 32_768  # of messages that Kafka's client holds for us: a second's worth, and no more memory than that


def build(
    settings: BatchLoaderSettings, stop: threading.Event, topics: service.Topics = service.PLATFORM, namespace: str = "bronze"
) -> Callable[[], None]:
    """All the parts, put together."""

    def open_tables() -> tuple[BronzeTable, BronzeTable]:
        catalog = lake.load_catalog(settings)
        events = open_table(catalog, f"{namespace}.events", rows.EVENTS, "received_at")
        letters = open_table(catalog, f"{namespace}.dead_letters", rows.DEAD_LETTERS, "rejected_at")
        return BronzeTable(events, topics.to_load[:1]), BronzeTable(letters, topics.to_load[1:])

    consumer = service.consumer(settings, queued_max_messages_kbytes=_READ_AHEAD_KB)
    stage = LakeStage(consumer, service.producer(settings), open_tables, topics.enriched, topics.dead_letter("loader"))
    return Runner(
        service=SERVICE,
        consumer=consumer,
        topics=topics.to_load,
        stage=stage,
        progress=stage,
        limits=Limits(settings.max_rows, settings.max_bytes, settings.max_age_seconds),
        reject_limit=RejectLimit(settings.max_reject_share),
        stop=stop,
        batch=RowBatch,
    ).run


if __name__ == "__main__":
    settings = BatchLoaderSettings.load()
    service.run(SERVICE, settings, lambda stop: build(settings, stop))
