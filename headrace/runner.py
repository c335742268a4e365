"""The loop of every consumer: poll, batch, deliver, dead-letter, commit; wait out outages; give way in a rebalance.

    poll -> parse each -> [batch full] -> deliver -> dead-letter -> commit
                                             |
                                        Unavailable: pause, keep polling, try the same batch again

Rules that hold here:

1. Offsets advance only past messages that are delivered or in the dead-letter topic. Until then the batch is in memory and uncommitted,
   so any crash repeats it; a stage's `deliver` is safe to repeat.
2. An outage never dead-letters. The loop goes on polling while it waits, so max.poll.interval.ms never expires; all partitions are
   paused, and a message that arrives all the same (its partition was assigned during the wait) is kept.
3. What is read from a partition that is taken away is dropped, and nothing is committed for it. Kafka runs our rebalance callbacks only
   inside a poll, so a batch is never changed while it is being delivered; a commit that comes too late is refused by the broker.
4. delivery.timeout.ms < the flush time-out < max.poll.interval.ms: each message produced has its outcome before we stop waiting for
   it, and that is before Kafka takes us for dead.
5. A message that ends the process again and again is found and dead-lettered, and costs the others nothing: `headrace.poison`.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace import metrics
from headrace.batch import Batch, Limits, RejectLimit, RejectWatch, TooManyRejects, back_off
from headrace.dead_letter import DeadLetter, Reason, Unavailable
from headrace.messages import Message, Partition, Rejected, letter_of
from headrace.offsets import CALL_SECONDS
from headrace.poison import CRASHES, Mark, Marks

T = TypeVar("T")
_IDLE_SECONDS = 1.0  # longest time in one poll: how late SIGTERM is seen
_UNASSIGNED_SECONDS = 0.1  # the same while nothing is ours: how late a first assignment is taken up
_CHUNK = 1000  # messages in one consume(): how far a batch can overshoot its limit of bytes


class Stage(Protocol[T]):
    """What one service does with messages. It never sees a consumer."""

    def parse(self, message: Message) -> T:
        """The value of one message. Pure: no I/O, called once for each message read. Raises Invalid where it can never be delivered."""

    def deliver(self, items: Sequence[tuple[Message, T]]) -> Sequence[Rejected]:
        """Bring a batch to where it goes, and return what was refused there for good.

        All I/O of the stage is here. It may be called again with the same items, or with fewer (their partition was taken away), after
        Unavailable or a crash, so doing it twice must leave what doing it once leaves. `items` may be empty.
        """


class Progress(Protocol):
    """How a batch becomes final, and where reading starts. One of `headrace.progress`, or a stage that keeps its offsets itself."""

    only_kafka: bool  # `finish` does nothing but talk to Kafka: whatever ends the process there, it is not a message's fault

    def start(self) -> None:
        """Called once, before the first poll. May raise Unavailable; is then called again."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Begin to read `partitions`. Called inside a poll: no other I/O, and no Unavailable."""

    def settle(self) -> None:
        """Called before each read, outside a poll: look up where reading starts, if that is still open. May raise Unavailable."""

    def begin(self) -> None:
        """Called before each attempt to deliver."""

    def finish(self, letters: Sequence[DeadLetter], offsets: Mapping[Partition, int]) -> None:
        """Make the letters durable, then the offsets. Raises Unavailable (all is tried again) or Rewind."""

    def abandon(self) -> None:
        """The attempt failed, by whatever exception: undo what `begin` and `deliver` did, as far as it would be seen by others."""


class Rewind(Exception):
    """Somebody else has moved on from where we are: forget what was read; `settle` says where to go on."""


class Runner(Generic[T]):
    """Runs one stage until `stop` is set. `service` is what dead letters name.

    `prepare` is done before anything is read; while it raises Unavailable it is waited for. `batch` makes an empty batch: a stage for which
    the messages themselves are too large to keep brings a kind of its own.
    """

    def __init__(
        self,
        *,
        service: str,
        consumer: Consumer,
        topics: Sequence[str],
        stage: Stage[T],
        progress: Progress,
        limits: Limits,
        reject_limit: RejectLimit,
        stop: threading.Event,
        prepare: Callable[[], None] = lambda: None,
        batch: Callable[[], Batch[T]] = Batch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._consumer = consumer
        self._topics = topics
        self._stage = stage
        self._progress = progress
        self._limits = limits
        self._rejects = RejectWatch(reject_limit)
        self._stop = stop
        self._prepare = prepare
        self._clock = clock
        self._log = structlog.get_logger()
        self._new_batch = batch
        self._batch = batch()
        self._kept: list[Message] = []  # read and not taken into a batch
        self._final: dict[Partition, int] = {}  # one after the last message that is final
        self._expected: dict[Partition, int] = {}  # of partitions that were paused, and have not gone on yet: their next message
        self._marks = Marks(consumer)
        self._alone: Partition | None = None  # while it is read alone, all others are paused
        self._waiting = False
        self._lag = metrics.LagGauge(consumer)

    def run(self) -> None:
        """Until `stop` is set. A batch that is not delivered by then stays uncommitted: the next start reads it again.

        Raises TooManyRejects, confluent_kafka.KafkaException where this consumer or its producer is of no more use, and what the
        stage raises besides Invalid and Unavailable.
        """
        self._until_available(self._prepare)
        self._until_available(self._progress.start)
        self._consumer.subscribe(list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        try:
            while not self._stop.is_set():
                self._until_available(self._settle)
                self._read()
                self._lag.update(paused=self._alone is not None)
                if self._batch.is_full(self._limits, self._clock()):
                    self._finish()
            self._marks.try_release()
        finally:
            self._marks.forget()  # after a crash they stay as they are
            self._consumer.close()

    # ---- reading ----

    def _settle(self) -> None:
        self._progress.settle()
        if offsets := self._marks.settle():
            if self._marks.in_doubt:
                self._rejects.doubt()
            self._lag.final(offsets)
            self._resume()

    def _read(self) -> None:
        """Wait for one message, then take what there is, until the batch is full or old enough."""
        if self._kept:
            pass  # first what came in while we waited
        elif self._batch:
            left = self._batch.opened_at + self._limits.seconds - self._clock()
            self._kept = self._poll(min(self._batch.room(self._limits), _CHUNK), max(0.0, min(left, _IDLE_SECONDS)))
        else:
            self._kept = self._poll(1, _IDLE_SECONDS if self._consumer.assignment() else _UNASSIGNED_SECONDS)
        suspect = self._marks.suspect(self._kept)
        if suspect is None:
            self._take(lambda kept: (kept, []))
        else:
            self._finish()
            self._isolate(*suspect)

    def _take(self, divided: Callable[[list[Message]], tuple[list[Message], list[Message]]]) -> None:
        """Into the batch with those messages of `_kept` that `divided` gives first; the others stay."""
        self._until_available(lambda: self._marks.hold(divided(self._kept)[0]))
        if not self._stop.is_set():
            messages, self._kept = divided(self._kept)
            with metrics.STEP_SECONDS.labels("parse").time():
                self._batch.add(messages, self._stage.parse, self._clock())

    def _isolate(self, partition: Partition, mark: Mark) -> None:
        """A process ended with the next messages of this partition: bring them through alone, in pieces."""
        self._log.warning("a process ended with these messages: in small batches now", partition=partition, mark=str(mark))
        if mark.is_too_much:
            self._log.error("each of these messages ends the process: that is no message's fault, and none more is dead-lettered")
        self._alone = partition
        metrics.ISOLATING.set(1)
        self._consumer.pause([other for other in self._consumer.assignment() if (other.topic, other.partition) != partition])
        left, piece = mark.messages, mark.attempt
        while left > 0 and self._marks.has(partition) and not self._stop.is_set():
            count = self._gather(partition, min(piece, left))
            offset = self._piece(partition, count, mark.is_poison) if count else None
            if offset is None:
                break  # nothing came, or what came is no longer ours
            left -= count
            if mark.is_poison:
                mark, left, piece = self._marks.behind(partition, offset, mark), 1, 1
        if left <= 0:
            self._marks.passed(partition)
        self._alone = None
        metrics.ISOLATING.set(0)
        self._resume()

    def _gather(self, partition: Partition, most: int) -> int:
        """Read until at most that many messages of the partition are kept; how many there are."""
        while (have := sum(_place(message) == partition for message in self._kept)) < most and not self._stop.is_set():
            more = self._poll(min(most - have, _CHUNK), _IDLE_SECONDS)
            if not more:
                break
            self._kept += more
        return min(have, most)

    def _piece(self, partition: Partition, count: int, poison: bool) -> int | None:
        """One batch of the partition's next messages; where it goes on after it, None where it was not made final."""

        def divided(kept: list[Message]) -> tuple[list[Message], list[Message]]:
            ours = [message for message in kept if _place(message) == partition][:count]
            taken = set(map(id, ours))
            return ours, [message for message in kept if id(message) not in taken]

        if poison:
            (message,), self._kept = divided(self._kept)
            self._batch.refuse(message, Reason.POISON, f"ended {CRASHES} processes in a row, alone; their logs say more", self._clock())
        else:
            self._take(divided)
        return self._finish().get(partition)

    def _poll(self, most: int, seconds: float) -> list[Message]:
        """At most `most` messages, without Kafka's remarks. Raises KafkaException for a remark that means the end."""
        messages: list[Any] = self._consumer.consume(most, seconds)
        found = [message for message in messages if (error := message.error()) is None or self._remark(error)]
        return self._without_repeated(found) if self._expected else found

    def _without_repeated(self, messages: list[Message]) -> list[Message]:
        """Those that were not read before the pause: librdkafka may go on from an earlier place than where it was paused."""
        new, repeated = list[Message](), Counter[tuple[Partition, int]]()
        for message in messages:
            partition = _place(message)
            expected = self._expected.get(partition, 0)
            if message.offset() < expected and self._reaches(partition, expected):
                repeated[partition, expected] += 1
            else:
                self._expected.pop(partition, None)
                new.append(message)
        for (partition, expected), number in repeated.items():
            self._log.warning("read again: passed over", partition=partition, messages=number, expected=expected)
        return new

    def _reaches(self, partition: Partition, offset: int) -> bool:
        """Whether there is as much of the partition as `offset`. Where not, it is another topic of that name, and all of it is new."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        return end < 0 or end >= offset

    def _expect(self) -> None:
        """From here on, each partition goes on after what was read of it."""
        read = dict(self._final)
        for partition, offset in (*self._batch.offsets.items(), *((_place(message), message.offset() + 1) for message in self._kept)):
            read[partition] = max(offset, read.get(partition, 0))
        self._expected = read

    def _remark(self, error: KafkaError) -> bool:
        if error.fatal() or error.code() == KafkaError._FATAL:  # the latter is said once, by an error that does not call itself fatal
            raise KafkaException(error)
        self._log.warning("kafka says", error=error.str(), code=error.name())
        return False

    # ---- making a batch final ----

    def _finish(self) -> Mapping[Partition, int]:
        """Deliver the batch and begin a new one. Returns the offsets that are final now."""
        batch, final = self._batch, dict[Partition, int]()

        def attempt() -> None:
            self._attempt()
            final.update(batch.offsets)

        try:
            self._until_available(attempt)
        except Rewind as why:
            self._log.warning("reading again", why=str(why))
            self._forget()
            self._marks.forget()
        self._batch = self._new_batch()
        return final

    def _attempt(self) -> None:
        batch, messages = self._batch, len(self._batch)
        if not messages:
            return  # all of it was taken away while we waited
        self._marks.hold()
        self._progress.begin()
        try:
            with metrics.STEP_SECONDS.labels("deliver").time():
                rejected = [*batch.rejected, *self._stage.deliver(batch.items)]
            self._rejects.check(messages, len(rejected), self._clock())
            if self._progress.only_kafka:
                self._marks.release(seconds=CALL_SECONDS)
            with metrics.STEP_SECONDS.labels("commit").time():
                self._progress.finish([letter_of(self._service, refusal) for refusal in rejected], batch.offsets)
        except BaseException as why:
            self._progress.abandon()
            if isinstance(why, TooManyRejects):
                self._marks.doubt(batch.starts)
            elif isinstance(why, Unavailable | Rewind):
                self._marks.try_release()
            raise
        self._final |= batch.offsets
        self._marks.final(batch.offsets, self._alone)
        self._lag.final(batch.offsets)
        self._rejects.count(messages, len(rejected), self._clock())
        metrics.MESSAGES.inc(messages)
        metrics.BATCH_MESSAGES.observe(messages)
        for refusal in rejected:
            metrics.REJECTED.labels(refusal.reason.value).inc()

    # ---- waiting ----

    def _until_available(self, action: Callable[[], None]) -> None:
        """Do `action`; as long as it says Unavailable, wait and do it again, unless we are told to stop."""
        waits = back_off()
        began = self._clock()
        while not self._stop.is_set():
            try:
                action()
            except Unavailable as why:
                wait = next(waits)
                self._set_waiting(True)
                self._log.warning("unavailable: waiting", why=str(why), for_seconds=round(self._clock() - began, 1))
                self._wait(wait)
            else:
                break
        if self._waiting:
            self._set_waiting(False)
            self._resume()
            if not self._stop.is_set():
                self._log.info("available again", after_seconds=round(self._clock() - began, 1))

    def _set_waiting(self, waiting: bool) -> None:
        self._waiting = waiting
        metrics.WAITING.set(waiting)

    def _wait(self, seconds: float) -> None:
        """Poll with everything paused. What arrives nevertheless is kept."""
        self._expect()
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0 and not self._stop.is_set():
            self._consumer.pause(self._consumer.assignment())
            self._kept += self._poll(_CHUNK, min(left, _IDLE_SECONDS))
            self._lag.update(paused=True)

    def _resume(self) -> None:
        """Read on from all partitions, or from the one that is to be alone."""
        self._expect()
        ours = self._consumer.assignment()
        self._consumer.resume([at for at in ours if self._alone in (None, (at.topic, at.partition))])

    # ---- rebalance: Kafka calls these inside poll and consume ----

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._log.info("assigned", partitions=_names(partitions))
        self._progress.assigned(partitions)
        self._consumer.pause(partitions)  # until `_settle`
        self._marks.assigned((partition.topic, partition.partition) for partition in partitions)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._log.info("revoked", partitions=_names(partitions))
        gone = _places(partitions)
        self._marks.revoked(gone)
        self._drop(gone)

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._log.warning("lost: others may have them already", partitions=_names(partitions))
        gone = _places(partitions)
        self._marks.forget(gone)
        self._drop(gone)

    def _forget(self) -> None:
        """What was read is read again, from where `settle` says."""
        self._kept.clear()
        self._final.clear()
        self._expected.clear()

    def _drop(self, gone: set[Partition]) -> None:
        self._batch.drop(gone)
        self._kept = [message for message in self._kept if _place(message) not in gone]
        for read in (self._final, self._expected):
            for partition in gone:
                read.pop(partition, None)
        self._lag.forget(gone)


def _places(partitions: Sequence[TopicPartition]) -> set[Partition]:
    return {(partition.topic, partition.partition) for partition in partitions}


def _place(message: Message) -> Partition:
    return message.topic(), message.partition()


def _names(partitions: Sequence[TopicPartition]) -> list[str]:
    return [f"{partition.topic}/{partition.partition}" for partition in partitions]
