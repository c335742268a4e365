"""A group's offsets in Kafka, and what Kafka's errors mean to a consumer."""

import threading
from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headrace.dead_letter import Unavailable
from headrace.messages import Partition

CALL_SECONDS = 10.0


class Offsets:
    """Commits of one consumer, each with a time limit, one after the other.

    librdkafka's commit has no limit: it waits for a Kafka that is away for as long as it is, and keeps signals from being handled. So it
    is called on a thread. One that has not ended in time goes on, and the next commit waits for it first: they never overtake each other.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._running: threading.Thread | None = None

    def commit(self, positions: Sequence[TopicPartition], seconds: float = CALL_SECONDS) -> None:
        """Returns once Kafka has them.

        Raises Unavailable where it has not, or has not said: also where we are not, or not yet, the one who may commit, for the next
        poll says what is ours. Raises KafkaException where this consumer is of no more use.
        """
        outcome: list[Exception] = []
        if self._running is not None:
            self._running.join(seconds)
        if self._running is None or not self._running.is_alive():
            self._running = threading.Thread(target=self._commit, args=(list(positions), outcome), daemon=True)
            self._running.start()
            self._running.join(seconds)
        if self._running.is_alive():
            raise Unavailable(f"Kafka: commit of offsets: no answer within {seconds:g} s")
        self._running = None
        if outcome:
            raise outcome[0]

    def _commit(self, positions: list[TopicPartition], outcome: list[Exception]) -> None:
        try:
            done = self._consumer.commit(offsets=positions, asynchronous=False) or ()
        except KafkaException as error:
            outcome.append(judged("commit of offsets", error))
        except RuntimeError as error:  # closed meanwhile
            outcome.append(Unavailable(f"Kafka: commit of offsets: {error}"))
        else:
            outcome += [judged(f"offset of {at.topic}/{at.partition}", KafkaException(at.error)) for at in done if at.error is not None]

    def committed(self, partitions: Iterable[Partition]) -> dict[Partition, tuple[int, str]]:
        """What the group has committed: offset (negative where nothing) and metadata of each. Raises Unavailable or KafkaException."""
        asked = [TopicPartition(*partition) for partition in partitions]
        found: list[TopicPartition] = []

        def ask() -> None:
            found[:] = self._consumer.committed(asked, timeout=CALL_SECONDS)

        call("committed offsets", ask)
        for at in found:
            if at.error is not None:
                raise Unavailable(f"Kafka: committed offset of {at.topic}/{at.partition}: {at.error.str()}")
        return {(at.topic, at.partition): (at.offset, at.metadata or "") for at in found}


def within(seconds: float, action: Callable[[], None]) -> bool:
    """Do `action` on a thread, and say whether it has ended in time; what it raises comes out. One that has not goes on unseen."""
    raised: list[Exception] = []

    def run() -> None:
        try:
            action()
        except Exception as error:  # handed on below
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    return not thread.is_alive()


def call(name: str, action: Callable[[], None], times: int = 1) -> None:
    """`action`, repeated where Kafka says that the same call may be. Raises Unavailable, or KafkaException where nothing will help."""
    for left in reversed(range(times)):
        try:
            return action()
        except KafkaException as error:
            if not (left and error.args[0].retriable()):
                raise judged(name, error) from error
    return None


_PASSING = {
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    # The group is being shared out anew, or has been without us: what a poll brings to light.
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._STATE,
}


def judged(name: str, error: KafkaException) -> Exception:
    """What a failed call means: an outage where trying again may help, else the end."""
    cause: KafkaError = error.args[0]
    hopeless = cause.fatal() or not (cause.retriable() or cause.txn_requires_abort() or cause.code() in _PASSING)
    return error if hopeless else Unavailable(f"Kafka: {name}: {cause.str()}")
