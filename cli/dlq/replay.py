"""Replaying: what is sent and the record of it are one transaction of Kafka, some hundred letters at a time.

So a replay that is killed has done whole transactions, or nothing of one; run again, it reads in the record what is done and does the rest.
Of two replays at one time the later one goes on: Kafka fences the earlier one off.
"""

import os
import pwd
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaException, Producer

from cli.dlq.judge import Judge, Looping, Replay
from cli.dlq.letters import Ids
from cli.kafka import Env, admin_of, consumer_of, offsets_of, security_of, values_in
from headrace import event, replays
from headrace.dead_letter import DeadLetter, Invalid
from headrace.kafka import ensure_topics, producer_config
from headrace.replays import Began, Ended, Judged, Record

REPLAYED, REFUSED, LOOPING, DONE = "replayed", "refused", "looping", "done before"
_LETTERS, _BYTES = 500, 4_000_000  # of one transaction
_CALL_SECONDS = 30.0
_TRANSACTION_SECONDS = 30  # Kafka ends one of a process that was killed after this; until then its readers wait


class Verdict(NamedTuple):
    """What becomes of a letter, and what is sent for it."""

    letter: DeadLetter
    outcome: str
    replay: Replay | None = None
    problem: Invalid | None = None
    why: str = ""


def verdicts(letters: Iterable[DeadLetter], judge: Judge, done: Ids) -> Iterator[Verdict]:
    """One for each letter, in order. `done`: the letters that an earlier replay sent."""
    for letter in letters:
        if letter.dead_letter_id in done:
            yield Verdict(letter, DONE)
            continue
        try:
            yield Verdict(letter, REPLAYED, judge(letter))
        except Invalid as problem:
            yield Verdict(letter, REFUSED, problem=problem, why=f"{problem.reason}: {problem.detail}")
        except Looping as why:
            yield Verdict(letter, LOOPING, why=str(why))


def records(env: Env) -> Iterator[Record]:
    """What is recorded of all replays, the oldest first."""
    with consumer_of(env) as consumer:
        for value in values_in(consumer, replays.TOPIC, offsets_of(consumer, replays.TOPIC) or {}):
            yield replays.decode(value)


def sent_before(env: Env) -> Ids:
    """The letters that were replayed."""
    ids, some = Ids(), list[str]()
    for record in records(env):
        if isinstance(record, Judged) and record.outcome == REPLAYED:
            some.append(record.dead_letter_id)
        if len(some) == 1000:
            ids.new(some)
            some.clear()
    ids.new(some)
    return ids


class Replayer:
    """One replay. Kafka's errors come through as KafkaException."""

    def __init__(self, env: Env) -> None:
        """Whatever an earlier one left open is undone from here on."""
        servers, security = env["KAFKA_BOOTSTRAP_SERVERS"], security_of(env)
        ensure_topics(admin_of(env), {replays.TOPIC: 1})
        config = producer_config(
            *(servers,),
            security=security,
            transactional_id="headrace.dlq-replay",
            transaction_timeout_ms=_TRANSACTION_SECONDS * 1000,
        )
        self._producer = Producer({**config, "log_level": 0})
        self._producer.init_transactions(_CALL_SECONDS)
        self.run = uuid.uuid4().hex[:12]

    def begin(self, asked: Mapping[str, str]) -> None:
        """Record who replays what."""
        self._write([], [Began(run=self.run, at=event.now(), by=_user(), host=socket.gethostname(), asked=dict(asked))])

    def send(self, found: Iterable[Verdict], rate: float, progress: Callable[[Counter[str]], None]) -> Counter[str]:
        """Send what is to be sent, at most `rate` events in a second (0: as fast as it goes). The letters by outcome."""
        total: Counter[str] = Counter()
        began, events = time.monotonic(), 0
        for chunk in _chunks(found, min(_LETTERS, max(1, int(rate))) if rate else _LETTERS):
            self._write([one.replay for one in chunk if one.replay], [record for one in chunk if (record := self._record(one))])
            total.update(one.outcome for one in chunk)
            progress(total)
            events += sum(len(one.replay.messages) for one in chunk if one.replay)
            if rate and (ahead := began + events / rate - time.monotonic()) > 0:
                time.sleep(ahead)
        return total

    def end(self, total: Counter[str]) -> None:
        """Record that all was done."""
        self._write([], [Ended(run=self.run, at=event.now(), letters=dict(total))])

    def _record(self, one: Verdict) -> Judged | None:
        if one.replay is None and one.problem is None:
            return None
        return Judged(
            run=self.run,
            at=event.now(),
            dead_letter_id=one.letter.dead_letter_id,
            outcome=one.outcome,
            to=one.replay.topic if one.replay else None,
            events=len(one.replay.messages) if one.replay else 0,
            reason=one.problem.reason if one.problem else None,
            detail=one.problem.detail if one.problem else None,
        )

    def _write(self, found: Sequence[Replay], written: Sequence[Record]) -> None:
        if not (found or written):
            return
        producer = self._producer
        producer.begin_transaction()
        for replay in found:
            for key, value in replay.messages:
                self._produce(replay.topic, key, value)
        for record in written:
            about = record.dead_letter_id if isinstance(record, Judged) else record.run
            self._produce(replays.TOPIC, about.encode(), replays.encode(record))
        _repeated(lambda: producer.commit_transaction(_CALL_SECONDS))

    def _produce(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                return self._producer.produce(topic, value, key)
            except BufferError:
                self._producer.poll(1.0)


def _user() -> str:
    """Who runs this, as the operating system says, and not the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def _repeated(call: Callable[[], Any], times: int = 3) -> None:
    """`call`, again where Kafka says that the same call may be."""
    for left in reversed(range(times)):
        try:
            call()
            return
        except KafkaException as error:
            if not (left and error.args[0].retriable()):
                raise


def _chunks(found: Iterable[Verdict], most: int) -> Iterator[list[Verdict]]:
    chunk: list[Verdict] = []
    size = 0
    for one in found:
        chunk.append(one)
        size += sum(len(value) for _, value in one.replay.messages) if one.replay else 0
        if len(chunk) >= most or size >= _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def runs(env: Env) -> list[dict[str, Any]]:
    """Each replay with what it was asked and did; `ended` is None for one that was killed."""
    found: dict[str, dict[str, Any]] = {}
    for record in records(env):
        if isinstance(record, Began):
            found[record.run] = {**msgspec.to_builtins(record), "ended": None, "letters": Counter()}
        elif record.run in found and isinstance(record, Judged):
            found[record.run]["letters"][record.outcome] += 1
        elif record.run in found and isinstance(record, Ended):
            found[record.run] |= {"ended": record.at, "letters": record.letters}
    return list(found.values())
