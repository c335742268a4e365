"""The same requests, answered by Spark Structured Streaming: `python -m ml stream` finds `Answers` by its import path.

Each of Spark's workers has the worker's parts: what the release file says serves, the customers' states, and `QueueStage`. So a request is
answered alike on either way.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from enrichment_api.queue.stage import REPLIES, REQUESTS, QueueStage
from enrichment_api.settings import Settings
from enrichment_api.wiring import refresher_of, watch_of
from headrace import dead_letter
from headrace.dead_letter import TOPIC_PREFIX, Invalid
from headrace.messages import Message, Rejected, letter_of
from headrace.observability import set_up_logging

NAME = "scoring-stream"
REFUSED = f"{TOPIC_PREFIX}enricher"

Written = tuple[str, bytes, bytes]  # topic, key, value


@dataclass(frozen=True)
class Read:
    """A message as Spark read it, in the form of `headrace.messages.Message`."""

    origin: tuple[str, int, int]
    bytes_: bytes | None

    def topic(self) -> str:
        """Its topic."""
        return self.origin[0]

    def partition(self) -> int:
        """Its partition."""
        return self.origin[1]

    def offset(self) -> int:
        """Its offset."""
        return self.origin[2]

    def key(self) -> bytes | None:
        """Nothing here asks for it."""
        return None

    def value(self) -> bytes | None:
        """Its bytes."""
        return self.bytes_


class _Answers:
    """What `ml.contract.Answers` asks for."""

    topics: Sequence[str] = (REQUESTS, REPLIES)

    def open(self) -> Callable[[Sequence[tuple[str, int, int, bytes | None]], Collection[str]], list[Written]]:
        """What answers a batch, with models and customers at hand. Raises ModelError, ReleaseError."""
        models = Settings.load()
        set_up_logging(NAME, models.log_level, models.log_format)
        watch, shadow = watch_of(models)
        refresher = refresher_of(models)
        shadow.start()
        watch.start()
        refresher.look()  # the first batch knows its customers
        refresher.start()

        def answer(messages: Sequence[tuple[str, int, int, bytes | None]], topics: Collection[str]) -> list[Written]:
            written: list[Written] = []

            def publish(topic: str, replies: list[dict[str, Any]]) -> None:
                written.extend((topic, reply["key"], reply["value"]) for reply in replies)

            stage = QueueStage(lambda: watch.serving, lambda: refresher.customers, publish, topics.__contains__)
            refused = answered(stage, [Read((topic, partition, offset), value) for topic, partition, offset, value in messages])
            letters = [letter_of(NAME, each) for each in refused]
            return written + [(REFUSED, letter.dead_letter_id.encode(), dead_letter.encode(letter)) for letter in letters]

        return answer


def answered(stage: QueueStage, messages: Sequence[Message]) -> list[Rejected]:
    """Have the stage publish the answers of a batch, and give what it refuses."""
    items, refused = [], []
    for message in messages:
        try:
            items.append((message, stage.parse(message)))
        except Invalid as problem:
            refused.append(Rejected(message, problem.reason, problem.detail))
    return [*refused, *stage.deliver(items)]


Answers = _Answers()
