"""Two ways in which a batch becomes final in Kafka. (The batch loader has a third: it keeps its offsets in the lake.)"""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from headrace import dead_letter
from headrace.dead_letter import DeadLetter, Unavailable
from headrace.kafka import told
from headrace.messages import Partition
from headrace.offsets import CALL_SECONDS, Offsets, call, within

FLUSH_SECONDS = 40.0  # more than delivery.timeout.ms (30 s): after it, each message has its outcome


class OutcomeUnknown(Exception):
    """Kafka did not say what became of a transaction. The process ends and is started again."""


def publish(producer: Producer, topic: str, letters: Sequence[DeadLetter]) -> None:
    """Returns once Kafka has acknowledged all of `letters`. Raises Unavailable where it has not; some may have arrived then."""
    failures: list[KafkaError] = []

    def outcome(error: KafkaError | None, _: object) -> None:
        if error is not None:
            failures.append(error)

    for letter in letters:
        while True:
            try:
                producer.produce(topic, dead_letter.encode(letter), letter.dead_letter_id, on_delivery=outcome)
                break
            except BufferError:
                told(lambda: producer.poll(1.0))
    left = told(lambda: producer.flush(FLUSH_SECONDS)) if letters else 0
    if failures or left:
        why = failures[0].str() if failures else "no acknowledgement"
        raise Unavailable(f"Kafka: {len(failures) + left} of {len(letters)} dead letters not written to {topic}: {why}")


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]


class GroupProgress:
    """At least once: dead letters acknowledged, then the group's offsets committed."""

    only_kafka = True

    def __init__(self, consumer: Consumer, producer: Producer, dead_letter_topic: str) -> None:
        self._consumer = consumer
        self._offsets = Offsets(consumer)
        self._producer = producer
        self._topic = dead_letter_topic

    def start(self) -> None:
        """Nothing to prepare."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on from what the group committed."""
        self._consumer.incremental_assign(list(partitions))

    def settle(self) -> None:
        """Nothing is open."""

    def begin(self) -> None:
        """Nothing to begin."""

    def finish(self, letters: Sequence[DeadLetter], offsets: Mapping[Partition, int]) -> None:
        """Dead letters, then offsets. A commit that comes after our partitions went to another member is refused by the broker (and is
        Unavailable: by the next attempt the batch is without them): what we delivered is delivered twice then, and a stage can bear that.
        """
        publish(self._producer, self._topic, letters)
        self._offsets.commit(_positions(offsets))

    def abandon(self) -> None:
        """Nothing to undo."""


class TransactionProgress:
    """Exactly once inside Kafka: what the stage produces, the dead letters and the offsets are one transaction.

    The stage produces through `publish`. A fetch of the group's state goes with the offsets, so the broker refuses a transaction of a
    consumer whose partitions went to another; a second process with our transactional.id makes our calls fail for good (fenced).
    """

    only_kafka = True

    def __init__(self, consumer: Consumer, producer: Producer, dead_letter_topic: str) -> None:
        self._consumer = consumer
        self._producer = producer
        self._topic = dead_letter_topic
        self._open = False

    def start(self) -> None:
        """Ends what an earlier process with our transactional.id left open, so that readers behind it go on."""
        call("init_transactions", lambda: self._producer.init_transactions(CALL_SECONDS))

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on from what the last transaction committed."""
        self._consumer.incremental_assign(list(partitions))

    def settle(self) -> None:
        """Nothing is open."""

    def begin(self) -> None:
        """Open a transaction."""
        call("begin_transaction", self._producer.begin_transaction)
        self._open = True

    def publish(self, topic: str, messages: list[dict[str, Any]]) -> None:
        """Produce `messages` ({"key", "value"}) inside the open transaction. Raises Unavailable where they do not fit into the queue.

        No outcome is asked for here: a transaction with a message that did not arrive cannot be committed.
        """
        try:
            queued = self._producer.produce_batch(topic, messages)
        except BufferError as error:
            raise Unavailable(f"Kafka: the queue to {topic} is full") from error
        if queued != len(messages):
            why = next(message["_error"] for message in messages if "_error" in message)
            raise Unavailable(f"Kafka: {len(messages) - queued} of {len(messages)} messages to {topic} not queued: {why!r}")

    def finish(self, letters: Sequence[DeadLetter], offsets: Mapping[Partition, int]) -> None:
        """Dead letters and offsets into the transaction, and commit it."""
        if letters:
            self.publish(self._topic, [{"key": letter.dead_letter_id.encode(), "value": dead_letter.encode(letter)} for letter in letters])
        group = self._consumer.consumer_group_metadata()
        # librdkafka may never return from this one where Kafka was away: it does not keep the time limit (its issues 5456 and 5511).
        if not within(CALL_SECONDS + 2, lambda: self._send_offsets(offsets, group)):
            self._open = False  # this producer is of no more use, not even to abort
            raise OutcomeUnknown("Kafka: send_offsets_to_transaction does not return; the next start aborts the transaction")
        self._open = False
        try:
            call("commit_transaction", lambda: self._producer.commit_transaction(FLUSH_SECONDS), times=3)
        except Unavailable as why:
            cause = why.__cause__
            if not isinstance(cause, KafkaException) or not cause.args[0].txn_requires_abort():
                # Whether it was committed is not known, so neither repeating nor aborting is right. The process ends; the next one's
                # init_transactions settles it, and the group's offsets say what is done.
                raise OutcomeUnknown(str(why)) from why
            self._open = True
            raise

    def _send_offsets(self, offsets: Mapping[Partition, int], group: object) -> None:
        call(
            "send_offsets_to_transaction",
            lambda: self._producer.send_offsets_to_transaction(_positions(offsets), group, CALL_SECONDS),
        )

    def abandon(self) -> None:
        """Abort: readers never see what was produced. Where that cannot be done, the process ends, and the next one's start does it."""
        if self._open:
            self._open = False
            try:
                call("abort_transaction", lambda: self._producer.abort_transaction(CALL_SECONDS), times=3)
            except Unavailable as why:
                raise OutcomeUnknown(str(why)) from why
