"""What the consumers' loop decides without I/O."""

from dataclasses import dataclass
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.batch import Batch, Limits, RejectLimit, RejectWatch, TooManyRejects, back_off
from headrace.dead_letter import Invalid, Reason
from headrace.messages import Message, Partition


@dataclass(frozen=True)
class Fake:
    """A message that is only a value."""

    at: Partition
    number: int
    body: bytes = b"ok"

    def topic(self) -> str:
        return self.at[0]

    def partition(self) -> int:
        return self.at[1]

    def offset(self) -> int:
        return self.number

    def key(self) -> bytes | None:
        return None

    def value(self) -> bytes | None:
        return self.body


def parse(message: Message) -> bytes:
    value = message.value() or b""
    if value == b"bad":
        raise Invalid(Reason.SCHEMA_INVALID, "bad")
    return value.upper()


PARTITIONS = [("a", 0), ("a", 1), ("b", 0)]


class BatchMachine(RuleBasedStateMachine):
    """A batch beside a list of what it should hold: messages in order, with gaps, repetitions, bad ones and lost partitions."""

    def __init__(self) -> None:
        super().__init__()
        self.batch: Batch[bytes] = Batch()
        self.held: list[Fake] = []
        self.next = dict.fromkeys(PARTITIONS, 0)

    @rule(
        partition=st.sampled_from(PARTITIONS),
        gaps=st.lists(st.integers(1, 4), max_size=5),
        bodies=st.lists(st.sampled_from([b"ok", b"bad"]), min_size=5, max_size=5),
    )
    def arrive(self, partition: Partition, gaps: list[int], bodies: list[bytes]) -> None:
        messages = []
        for gap, body in zip(gaps, bodies, strict=False):
            self.next[partition] += gap  # transaction markers leave gaps
            messages.append(Fake(partition, self.next[partition], body))
        self.batch.add(messages, parse, now=0.0)
        self.held += messages

    @rule(back=st.integers(0, 5))
    def arrive_again(self, back: int) -> None:
        self.batch.add(self.held[-back:] if back else [], parse, now=0.0)

    @rule(gone=st.sets(st.sampled_from(PARTITIONS)))
    def lose(self, gone: set[Partition]) -> None:
        self.batch.drop(gone)
        self.held = [message for message in self.held if message.at not in gone]

    @invariant()
    def holds_each_message_once_in_order(self) -> None:
        assert [message for message, _ in self.batch.items] == [message for message in self.held if message.body == b"ok"]
        assert [refusal.message for refusal in self.batch.rejected] == [message for message in self.held if message.body == b"bad"]
        assert len(self.batch) == len(self.held)
        assert self.batch.bytes == sum(len(message.body) for message in self.held)

    @invariant()
    def offsets_are_one_after_the_last_message_of_each_partition(self) -> None:
        assert self.batch.offsets == {message.at: message.number + 1 for message in self.held}


TestBatch = BatchMachine.TestCase
TestBatch.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def test_a_batch_is_full_by_count_bytes_or_age_and_never_when_empty() -> None:
    limits = Limits(messages=3, bytes=10, seconds=2.0)
    batch: Batch[bytes] = Batch()
    assert not batch.is_full(limits, now=1e9)
    batch.add([Fake(("a", 0), 0)], parse, now=100.0)
    assert (batch.room(limits), batch.is_full(limits, 101.9), batch.is_full(limits, 102.0)) == (2, False, True)
    batch.add([Fake(("a", 0), 1, b"12345678")], parse, now=101.0)
    assert batch.is_full(limits, 101.0)  # 10 bytes
    other: Batch[bytes] = Batch()
    other.add([Fake(("a", 0), n, b"bad") for n in range(3)], parse, now=0.0)
    assert (other.is_full(limits, 0.0), other.room(limits)) == (True, 0)


def test_what_parse_raises_besides_invalid_goes_through() -> None:
    def broken(_: Message) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Batch[bytes]().add([Fake(("a", 0), 0)], broken, now=0.0)


def test_rejects_stop_the_service_only_above_the_share_and_of_enough_messages() -> None:
    watch = RejectWatch(RejectLimit(share=0.5, least=1000, seconds=60))
    watch.check(999, 999, now=0.0)  # too few to say
    watch.count(999, 999, now=0.0)
    watch.check(1000, 0, now=1.0)  # nothing refused now: not our moment to stop
    with pytest.raises(TooManyRejects, match="1000 of the last 1000 messages"):
        watch.check(1, 1, now=2.0)
    watch.check(1, 1, now=61.0)  # the window has moved on
    watch.count(1000, 400, now=61.0)
    watch.check(1000, 600, now=62.0)  # exactly half
    with pytest.raises(TooManyRejects):
        watch.check(1000, 601, now=62.0)


@given(st.floats(0.01, 5), st.floats(5, 60), st.floats(0, 1, exclude_max=True))
def test_back_off_grows_to_its_cap_and_keeps_half_of_it(first: float, most: float, luck: float) -> None:
    waits = list(islice(back_off(first, most, lambda: luck), 20))
    assert all(0 < wait <= most for wait in waits)
    assert waits == sorted(waits)
    assert waits[-1] >= most / 2


def test_in_doubt_a_few_rejects_are_enough_until_a_batch_has_passed() -> None:
    watch = RejectWatch(RejectLimit(share=0.5, least=1000, seconds=60))
    watch.doubt()
    watch.check(19, 19, now=0.0)  # too few to say anything
    with pytest.raises(TooManyRejects):
        watch.check(20, 11, now=0.0)
    watch.check(20, 10, now=0.0)
    watch.count(20, 10, now=0.0)
    watch.check(100, 100, now=1.0)
