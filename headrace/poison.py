"""Finding the one message that ends the process, whatever way: an exception, a signal, no memory left.

A process that is killed can say nothing, so it says beforehand what it has in its hands: a mark, in the metadata of the group's committed
offset. It is written before the first messages of a partition are touched after it came to us, and gone with the first commit after
that; from there on there are none, so a mark costs one commit for each assignment and nothing for each message. A process that finds one
follows a process that ended with those messages, and brings them through alone and in ever smaller pieces, until a single message has
been the end of three processes in a row. Whatever ends otherwise (an outage, too many rejects, a stop) takes its mark back.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from headrace.dead_letter import Unavailable
from headrace.messages import Message, Partition
from headrace.offsets import Offsets

CRASHES = 3  # of a message alone, in a row
_BEFORE_PIECES = 2  # crashes before messages are divided: one may be anything
_PIECES = 16  # many, since a piece that passes costs a batch, and one that does not a process
_IN_A_ROW = 20  # poison messages next to each other: beyond that it is the service that is wrong
_RELEASE_SECONDS = 1.0


class Mark(msgspec.Struct, frozen=True):
    """What a process had in its hands, from the committed offset on.

    `crashes` counts processes in a row, anew once it is a single message; `after` says how many messages directly before were poison.
    With `doubt`, the process did not crash: it stopped at the limit of rejects.
    """

    messages: int
    crashes: int
    after: int = 0
    doubt: bool = False

    @property
    def is_poison(self) -> bool:
        """Whether the (single) message is to be dead-lettered."""
        return self.messages == 1 and self.crashes >= CRASHES and not self.is_too_much

    @property
    def is_too_much(self) -> bool:
        """Whether so many before it were poison that this one is not to be dead-lettered."""
        return self.after >= _IN_A_ROW

    @property
    def attempt(self) -> int:
        """How many of the messages to try at once."""
        return self.messages if self.crashes < _BEFORE_PIECES else -(-self.messages // _PIECES)

    @property
    def behind_poison(self) -> "Mark":
        """The mark for the next message, once this one is dead-lettered: it is tried alone at once."""
        return Mark(1, 0, self.after + 1)


def again(found: Mark | None, messages: int) -> Mark:
    """The mark to write before an attempt with that many messages, where `found` was there."""
    if found is None:
        return Mark(messages, 1)
    anew = messages == 1 < found.messages
    return Mark(messages, 1 if anew else found.crashes + 1, found.after)


_decoder = msgspec.json.Decoder(Mark)


def read(metadata: str) -> Mark | None:
    """The mark in the metadata of an offset. What somebody else wrote there is none."""
    try:
        mark = _decoder.decode(metadata)
    except (msgspec.DecodeError, UnicodeError):
        return None
    return mark if mark.messages > 0 or mark.doubt else None


def written(mark: Mark | None) -> str:
    """The inverse of `read`."""
    return "" if mark is None else msgspec.json.encode(mark).decode()


class Marks:
    """The marks of the partitions that one consumer has."""

    def __init__(self, consumer: Consumer) -> None:
        self._offsets = Offsets(consumer)
        self.in_doubt = False  # the process before us stopped at the limit of rejects
        self._unknown: set[Partition] = set()
        self._found: dict[Partition, tuple[int, Mark]] = {}  # left by others, and not passed yet
        self._fresh: set[Partition] = set()  # nothing of it is final since it came to us
        self._held: dict[Partition, tuple[int, int]] = {}  # of fresh ones, in our hands: first offset, messages
        self._in_kafka: dict[Partition, tuple[int, int]] = {}  # of those, what our marks say now

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """They came to us. What Kafka has of them is looked up by `settle`, before anything of them may be read."""
        self._unknown |= set(partitions)

    def settle(self) -> dict[Partition, int]:
        """Look up the marks of partitions that are new, which gives their offsets too (negative where nothing is committed).

        Raises Unavailable or KafkaException.
        """
        if not self._unknown:
            return {}
        asked, self.in_doubt = frozenset(self._unknown), False
        committed = self._offsets.committed(asked)
        for partition, (offset, metadata) in committed.items():
            mark = read(metadata)
            if mark is not None and offset >= 0:
                if mark.doubt:
                    self.in_doubt = True
                else:
                    self._found[partition] = offset, mark
        self._fresh |= asked
        self._unknown -= asked
        return {partition: offset for partition, (offset, _) in committed.items()}

    def suspect(self, messages: Iterable[Message]) -> tuple[Partition, Mark] | None:
        """A partition whose next messages, of which the first is in `messages`, have a mark on them."""
        if not self._found:
            return None
        for message in messages:
            partition = message.topic(), message.partition()
            if partition in self._found:
                at, mark = self._found[partition]
                if message.offset() == at or mark.crashes == 0:
                    return partition, mark
                del self._found[partition]  # somebody got past it
        return None

    def hold(self, messages: Sequence[Message] = ()) -> None:
        """Before `messages` are touched, and again before each attempt to deliver. Raises Unavailable or KafkaException."""
        if not self._fresh:
            return
        held = dict(self._held)
        for message in messages:
            partition = message.topic(), message.partition()
            if partition in self._fresh:
                at, count = held.get(partition, (message.offset(), 0))
                held[partition] = at, count + 1
        if held != self._in_kafka:
            found = {partition: mark for partition, (_, mark) in self._found.items()}
            self._write({partition: (at, again(found.get(partition), count)) for partition, (at, count) in held.items()})
            self._held, self._in_kafka = held, dict(held)

    def release(self, partitions: Iterable[Partition] | None = None, seconds: float = _RELEASE_SECONDS) -> None:
        """What is in our hands (of `partitions`) is not to be blamed for what comes. Raises Unavailable or KafkaException."""
        ours = set(self._in_kafka) if partitions is None else set(partitions) & set(self._in_kafka)
        if ours:
            before = {partition: mark for partition, (_, mark) in self._found.items()}
            self._write({partition: (self._in_kafka[partition][0], before.get(partition)) for partition in ours}, seconds)
            for partition in ours:
                del self._in_kafka[partition]

    def try_release(self, partitions: Iterable[Partition] | None = None) -> None:
        """`release` where a mark that stays does no more harm than some small batches later."""
        try:
            self.release(partitions)
        except (Unavailable, KafkaException) as why:
            structlog.get_logger().warning("a mark stays", why=str(why))

    def final(self, partitions: Iterable[Partition], isolated: Partition | None = None) -> None:
        """Committed: that took the marks away. An `isolated` partition is marked again with its next messages."""
        for partition in partitions:
            self._held.pop(partition, None)
            self._in_kafka.pop(partition, None)
            if partition != isolated:
                self._fresh.discard(partition)

    def passed(self, partition: Partition) -> None:
        """All that the mark spoke of is final: the partition is like any other."""
        self._found.pop(partition, None)
        self._fresh.discard(partition)

    def behind(self, partition: Partition, offset: int, poison: Mark) -> Mark:
        """The mark for what comes behind a poison message, whose partition goes on at `offset`."""
        mark = poison.behind_poison
        self._found[partition] = offset, mark
        try:
            self._write({partition: (offset, mark)})
        except Unavailable as why:  # it is counted from none again then
            structlog.get_logger().warning("a mark is not written", why=str(why))
        return mark

    def doubt(self, starts: Mapping[Partition, int]) -> None:
        """Tell the next process that we stop at the limit of rejects, with nothing final from these offsets on."""
        self._held, self._in_kafka = {}, {}
        try:
            self._write({partition: (offset, Mark(0, 0, doubt=True)) for partition, offset in starts.items()})
        except (Unavailable, KafkaException) as why:
            structlog.get_logger().warning("a mark is not written", why=str(why))

    def has(self, partition: Partition) -> bool:
        """Whether a mark is on what is next of the partition, and the partition ours."""
        return partition in self._found and partition in self._fresh

    def revoked(self, gone: Iterable[Partition]) -> None:
        """Given away in peace, so their messages did no harm. Called inside a poll."""
        gone = set(gone)
        self.try_release(gone)
        self.forget(gone)

    def forget(self, gone: Iterable[Partition] | None = None) -> None:
        """Nothing of them (None: of all) is in our hands any more."""
        gone = set(gone) if gone is not None else set(self._fresh | self._unknown | set(self._found))
        self._unknown -= gone
        self._fresh -= gone
        for partition in gone:
            self._found.pop(partition, None)
            self._held.pop(partition, None)
            self._in_kafka.pop(partition, None)

    def _write(self, marks: dict[Partition, tuple[int, Mark | None]], seconds: float = 10.0) -> None:
        positions = [TopicPartition(*partition, offset, written(mark)) for partition, (offset, mark) in marks.items()]
        self._offsets.commit(positions, seconds)
