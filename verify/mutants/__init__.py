"""Five mistakes that the checker must notice. The checker puts them into a service when it starts; no service knows of them.

    python -m verify.mutants <mistake> <module>     runs the module as `python -m` would, with the mistake in it

Each imports what it changes when it is asked for, since the modules live in different environments.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any


def ack_before_flush() -> None:
    """The collector answers before Kafka has acknowledged."""
    from collector.outbox import Outbox

    put, begin = Outbox.put, Outbox.begin
    under_way: set[asyncio.Task[None]] = set()

    async def write(outbox: Any, *messages: Any) -> None:
        with contextlib.suppress(Exception):
            await put(outbox, *messages)

    async def answered_at_once(outbox: Any, *messages: Any) -> None:
        task = asyncio.create_task(write(outbox, *messages))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    def told_at_once(outbox: Any, raw: Any, tell: Callable[[Any], None]) -> None:
        begin(outbox, raw, lambda _: None)
        tell(None)

    Outbox.put = answered_at_once  # type: ignore[method-assign,assignment]
    Outbox.begin = told_at_once  # type: ignore[method-assign,assignment]


def auto_commit_before_deliver() -> None:
    """Kafka's client commits what was read, whether it was delivered or not."""
    from headrace import kafka, service

    configured = kafka.consumer_config

    def careless(*arguments: Any, **overrides: Any) -> kafka.Config:
        config = configured(*arguments, **overrides)
        return {**config, "enable.auto.commit": True, "enable.auto.offset.store": True, "auto.commit.interval.ms": 100}

    kafka.consumer_config = service.consumer_config = careless  # type: ignore[attr-defined]


def ignored_bulk_items() -> None:
    """The real-time loader looks at the status of a bulk request and not at those of its items."""
    from collections.abc import Sequence

    from loaders.realtime.mapping import Document
    from loaders.realtime.search import Search
    from loaders.realtime.stage import Outcome

    create = Search.create

    def unread(search: Search, documents: Sequence[Document]) -> Sequence[Outcome]:
        return [Outcome(201) for _ in create(search, documents)]

    Search.create = unread  # type: ignore[method-assign,assignment]


def cleanup_on_unknown_commit() -> None:
    """A commit that fails takes its files with it, though it may have landed."""
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.table.update import AddSnapshotUpdate

    commit = SqlCatalog.commit_table

    def tidy(catalog: SqlCatalog, table: Any, requirements: Any, updates: Any) -> Any:
        try:
            return commit(catalog, table, requirements, updates)
        except Exception:
            for snapshot in [update.snapshot for update in updates if isinstance(update, AddSnapshotUpdate)]:
                for manifest in snapshot.manifests(table.io):
                    for entry in manifest.fetch_manifest_entry(table.io):
                        if entry.snapshot_id == snapshot.snapshot_id:
                            table.io.delete(entry.data_file.file_path)
            raise

    SqlCatalog.commit_table = tidy  # type: ignore[method-assign,assignment]


def deduplication_off() -> None:
    """Curation takes every valid sending for a new event."""
    from pyspark.sql import functions as F

    from dags.curation import silver

    judged = silver.judged

    def credulous(checked: Any, index: Any) -> Any:
        verdict = F.when(F.col("verdict") == silver.DUPLICATE, silver.NEW).otherwise(F.col("verdict"))
        return judged(checked, index).withColumn("verdict", verdict)

    silver.judged = credulous


MUTANTS: dict[str, Callable[[], None]] = {
    mutant.__name__: mutant
    for mutant in (ack_before_flush, auto_commit_before_deliver, ignored_bulk_items, cleanup_on_unknown_commit, deduplication_off)
}
