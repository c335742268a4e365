"""The clients of Kafka that the outbox may use: confluent-kafka's producer, and native code on the same librdkafka (collector/native).

Both do the same, with the same settings. In native code a message need not become Python objects, and no report of one does.
"""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from zlib import crc32

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, cimpl

from collector import metrics
from headrace import dead_letter, event, kafka
from headrace.dead_letter import Unavailable

try:
    from collector import _native
except ImportError:  # it was not built
    _native = None  # type: ignore[assignment]

DEAD_LETTER_TOPIC = dead_letter.TOPIC_PREFIX + "collector"

_TOPICS = (event.RAW_TOPIC, DEAD_LETTER_TOPIC)
_PROBE_TIMEOUT = 3.0
_CAUSES = {  # errors of the client that say why Kafka cannot be reached
    "_AUTHENTICATION": "it refuses these credentials: look at KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
    "_SSL": "TLS fails: look at KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_CA_FILE",
}

_log = structlog.get_logger()

Keyed = tuple[bytes, bytes]
Tell = Callable[[Unavailable | None], None]


def size_of(keyed: Sequence[Keyed]) -> int:
    """Bytes of all keys and values."""
    if _native is not None and isinstance(keyed, _native.Messages):
        return keyed.size
    return sum(len(key) + len(value) for key, value in keyed)


class NotThere(Exception):
    """The native client cannot be used here."""


class Waiting:
    """What one request waits for. Kafka's client holds it until its last report, so it holds nothing of a request that was answered."""

    __slots__ = ("bytes", "expires", "reports", "tell")

    def __init__(self, tell: Tell, expires: float, size: int) -> None:
        """`tell` is called once, unless `tell` is set to None before."""
        self.tell: Tell | None = tell
        self.expires = expires
        self.reports = 0
        self.bytes = size

    @property
    def waits(self) -> bool:
        """Whether it was not answered yet."""
        return self.tell is not None

    def answer(self, problem: Unavailable | None = None) -> None:
        """Tell that all is acknowledged, or what came between, if nothing was told yet."""
        tell, self.tell = self.tell, None
        if tell:
            tell(problem)


class Line(ABC):
    """One producer's life, with the requests that depend on it."""

    def __init__(self, config: kafka.Config) -> None:
        """`config`: librdkafka's settings."""
        self._config = {**config, "log_level": 0}
        self.broken: str | None = None
        self.bytes = 0
        self.waiting: deque[Waiting] = deque()
        self.bell: int | None = None
        """An eventfd that can be read once there is something for `poll`; None where one has to look every now and then."""
        self._partitions: dict[str, int] = {}
        self._errors: set[str] = set()  # names of all that the client told

    def probe(self) -> str | None:
        """Look at the topics; a reason where Kafka cannot take events. Blocks: runs in a thread."""
        try:
            counts = self._counts()
        except Unavailable as problem:
            self.poll()
            return next((f"Kafka cannot be reached: {_CAUSES[name]}" for name in _CAUSES if name in self._errors), str(problem))
        for name in _TOPICS:
            if not counts.get(name):
                return f"Kafka has no topic {name}"
        self._partitions = {name: counts[name] for name in _TOPICS}
        return None

    @abstractmethod
    def _counts(self) -> Mapping[str, int]:
        """The number of partitions of each topic that there is. Raises Unavailable."""

    @abstractmethod
    def produce(self, topic: str, keyed: Sequence[Keyed], request: Waiting) -> None:
        """Hand messages to the client. Raises Unavailable where it did not take them all."""

    @abstractmethod
    def poll(self) -> None:
        """Take the client's reports."""

    def _reported(self, request: Waiting) -> bool:
        """Take one good report; whether it was the request's last."""
        request.reports -= 1
        if request.reports:
            return False
        self.bytes -= request.bytes
        request.answer()
        return True

    def abandon(self, why: str) -> None:
        """Answer everything that waits with Unavailable."""
        while self.waiting:
            self.waiting.popleft().answer(Unavailable(why))

    @abstractmethod
    def flush(self, seconds: float) -> None:
        """Wait until all is written, at most so long. Blocks: runs in a thread."""

    @abstractmethod
    def dispose(self) -> None:
        """Let go of the client and what it holds. Blocks: runs in a thread."""


class PythonLine(Line):
    """With confluent-kafka's producer."""

    def __init__(self, config: kafka.Config) -> None:
        super().__init__(config)
        self._producer = Producer({**self._config, "error_cb": self._on_error})

    def _counts(self) -> Mapping[str, int]:
        try:
            topics = self._producer.list_topics(timeout=_PROBE_TIMEOUT).topics
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {error.args[0].str()}") from None
        return {name: len(topic.partitions) for name, topic in topics.items() if not topic.error}

    def produce(self, topic: str, keyed: Sequence[Keyed], request: Waiting) -> None:
        partitions = self._partitions[topic]
        last: set[int] = set()
        messages: list[dict[str, Any]] = []
        for key, value in reversed(keyed):
            partition = crc32(key) % partitions
            message = {"key": key, "value": value, "partition": partition}
            if partition not in last:
                last.add(partition)
                message["callback"] = self._report_to(request)
            messages.append(message)
        messages.reverse()
        request.reports += len(last)
        try:
            taken = self._producer.produce_batch(topic, messages)
        except (BufferError, KafkaException) as error:
            taken, self.broken = 0, f"Kafka's client takes no messages: {error}"
        if taken < len(messages):  # their number and size are bounded, so this is no full queue
            self.broken = self.broken or f"Kafka's client refused messages: {[m['_error'] for m in messages if '_error' in m][:1]}"
            raise Unavailable(self.broken)

    def _report_to(self, request: Waiting) -> Callable[[KafkaError | None, Message], None]:
        def report(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                metrics.KAFKA_ERRORS.labels(error.name()).inc()
                self.broken = self.broken or f"Kafka refused messages: {error.str()}"
            if not self.broken:  # the client tells of a loss before it tells of what came after it
                self._reported(request)

        return report

    def _on_error(self, error: KafkaError) -> None:
        self._errors.add(error.name())
        metrics.KAFKA_ERRORS.labels(error.name()).inc()
        if error.fatal() or error.code() == KafkaError._FATAL:
            self.broken = self.broken or f"Kafka's client gave up: {error.str()}"

    def poll(self) -> None:
        try:
            kafka.told(lambda: self._producer.poll(0))
        except KafkaException as error:  # a fatal one
            self.broken = self.broken or f"Kafka's client gave up: {error.args[0].str()}"

    def flush(self, seconds: float) -> None:
        with suppress(KafkaException):  # a fatal one: `poll` tells of it, too
            kafka.told(lambda: self._producer.flush(seconds))

    def dispose(self) -> None:
        self._producer.purge()
        self.flush(1)


class NativeLine(Line):
    """With native code on confluent-kafka's librdkafka. It sees the report of every message, so the first one that is lost breaks it."""

    def __init__(self, config: kafka.Config) -> None:
        """Raises NotThere."""
        super().__init__(config)
        self._requests: dict[int, Waiting] = {}  # by id(), which is a request's number while it is here
        self._producer = self._open(self._config)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._producer.wake(self.bell)

    @staticmethod
    def _open(config: kafka.Config) -> "_native.Producer":
        if _native is None:
            raise NotThere("it is not built")
        settings = [(name, str(value).lower() if isinstance(value, bool) else str(value)) for name, value in config.items()]
        try:
            return _native.Producer(cimpl.__file__, settings)
        except RuntimeError as error:
            raise NotThere(str(error)) from None

    def _counts(self) -> Mapping[str, int]:
        try:
            return self._producer.partitions(int(_PROBE_TIMEOUT * 1000))
        except RuntimeError as error:
            raise Unavailable(f"Kafka cannot be reached: {error}") from None

    def produce(self, topic: str, keyed: Sequence[Keyed], request: Waiting) -> None:
        self._requests[id(request)] = request
        try:
            request.reports += self._producer.produce(topic, self._partitions[topic], keyed, id(request))
        except RuntimeError as error:  # their number and size are bounded, so this is no full queue
            self.broken = self.broken or f"Kafka's client refused messages: {error}"
            raise Unavailable(self.broken) from None

    def poll(self) -> None:
        done, errors, broken = self._producer.poll()
        for number in done:
            if self._reported(self._requests[number]):
                del self._requests[number]
        for name in errors:
            self._errors.add(name)
            metrics.KAFKA_ERRORS.labels(name).inc()
        self.broken = self.broken or broken

    def flush(self, seconds: float) -> None:
        self._producer.flush(int(seconds * 1000))

    def dispose(self) -> None:
        self._producer.dispose()
        bell, self.bell = self.bell, None
        if bell is not None:
            os.close(bell)


def choose(wanted: str) -> type[Line]:
    """The line for COLLECTOR_NATIVE: `auto` is native where that is possible, `on` insists (raises NotThere), `off` is Python."""
    if wanted == "off" or (wanted == "auto" and _native is None):
        return PythonLine
    try:
        NativeLine({}).dispose()
    except NotThere as problem:
        if wanted == "on":
            raise NotThere(f"its native client of Kafka cannot be used: {problem}; set COLLECTOR_NATIVE=auto") from None
        _log.warning("the native client of Kafka cannot be used", why=str(problem))
        return PythonLine
    return NativeLine
