"""Two ways in which a batch becomes final in Kafka. (The batch loader has a third: it keeps its offsets in the lake.)"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from headrace import dead_letter
from headrace.dead_letter import DeadLetter, Unavailable
from headrace.messages import Partition

FLUSH_SECONDS = 40.0  # more than delivery.timeout.ms (30 s): after it, each message has its outcome
_CALL_SECONDS = 10.0


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
                producer.poll(1.0)
    left = producer.flush(FLUSH_SECONDS) if letters else 0
    if failures or left:
        why = failures[0].str() if failures else "no acknowledgement"
        raise Unavailable(f"Kafka: {len(failures) + left} of {len(letters)} dead letters not written to {topic}: {why}")


def _positions(offsets: Mapping[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]


def _take_up(consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
    """Read on where the group's offsets are. A partition that we had paused when it was taken away would come back paused."""
    consumer.incremental_assign(list(partitions))
    consumer.resume(list(partitions))


class GroupProgress:
    """At least once: dead letters acknowledged, then the group's offsets committed."""

    def __init__(self, consumer: Consumer, producer: Producer, dead_letter_topic: str) -> None:
        self._consumer = consumer
        self._producer = producer
        self._topic = dead_letter_topic

    def start(self) -> None:
        """Nothing to prepare."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on from what the group committed."""
        _take_up(self._consumer, partitions)

    def settle(self) -> None:
        """Nothing is open."""

    def begin(self) -> None:
        """Nothing to begin."""

    def finish(self, letters: Sequence[DeadLetter], offsets: Mapping[Partition, int]) -> None:
        """Dead letters, then offsets. A commit that comes after our partitions went to another member is refused by the broker: what we
        delivered is delivered twice then, and a stage can bear that.
        """
        publish(self._producer, self._topic, letters)
        try:
            done = self._consumer.commit(offsets=_positions(offsets), asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() in _NOT_OURS:
                return
            raise _judged("commit of offsets", error) from error
        for partition in done or ():
            if partition.error is not None and partition.error.code() not in _NOT_OURS:
                raise Unavailable(f"Kafka: offset of {partition.topic}/{partition.partition} not committed: {partition.error.str()}")

    def abandon(self) -> None:
        """Nothing to undo."""


class TransactionProgress:
    """Exactly once inside Kafka: what the stage produces, the dead letters and the offsets are one transaction.

    The stage produces through `publish`. A fetch of the group's state goes with the offsets, so the broker refuses a transaction of a
    consumer whose partitions went to another; a second process with our transactional.id makes our calls fail for good (fenced).
    """

    def __init__(self, consumer: Consumer, producer: Producer, dead_letter_topic: str) -> None:
        self._consumer = consumer
        self._producer = producer
        self._topic = dead_letter_topic
        self._open = False

    def start(self) -> None:
        """Ends what an earlier process with our transactional.id left open, so that readers behind it go on."""
        _call("init_transactions", lambda: self._producer.init_transactions(_CALL_SECONDS))

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Read on from what the last transaction committed."""
        _take_up(self._consumer, partitions)

    def settle(self) -> None:
        """Nothing is open."""

    def begin(self) -> None:
        """Open a transaction."""
        _call("begin_transaction", self._producer.begin_transaction)
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
        _call(
            "send_offsets_to_transaction",
            lambda: self._producer.send_offsets_to_transaction(_positions(offsets), group, _CALL_SECONDS),
        )
        self._open = False
        try:
            _call("commit_transaction", lambda: self._producer.commit_transaction(FLUSH_SECONDS), times=3)
        except Unavailable as why:
            cause = why.__cause__
            if not isinstance(cause, KafkaException) or not cause.args[0].txn_requires_abort():
                # Whether it was committed is not known, so neither repeating nor aborting is right. The process ends; the next one's
                # init_transactions settles it, and the group's offsets say what is done.
                raise OutcomeUnknown(str(why)) from why
            self._open = True
            raise

    def abandon(self) -> None:
        """Abort: readers never see what was produced. Where that cannot be done, the process ends, and the next one's start does it."""
        if self._open:
            self._open = False
            try:
                _call("abort_transaction", lambda: self._producer.abort_transaction(_CALL_SECONDS), times=3)
            except Unavailable as why:
                raise OutcomeUnknown(str(why)) from why


def _call(name: str, call: Callable[[], None], times: int = 1) -> None:
    """`call`, repeated where Kafka says that the same call may be. Raises Unavailable, or KafkaException where nothing will help."""
    for left in reversed(range(times)):
        try:
            return call()
        except KafkaException as error:
            if not (left and error.args[0].retriable()):
                raise _judged(name, error) from error
    return None


_NOT_OURS = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError._NO_OFFSET,
    KafkaError._ASSIGNMENT_LOST,
}


_PASSING = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}


def _judged(name: str, error: KafkaException) -> Exception:
    """What a failed call means: an outage where trying again may help, else the end."""
    cause: KafkaError = error.args[0]
    hopeless = cause.fatal() or not (cause.retriable() or cause.txn_requires_abort() or cause.code() in _PASSING)
    return error if hopeless else Unavailable(f"Kafka: {name}: {cause.str()}")
