"""Messages of Kafka answered by Spark Structured Streaming: read, given to workers in Arrow batches, and what they say written to Kafka.

At least once: a batch's answers are in Kafka before the checkpoint says that it is done; one that was cut off is answered again. At most
`SCORING_STREAM_MAX_MESSAGES` are under way, the rest waits in Kafka.
"""

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headrace.errors import in_a_line
from ml.contract import Answers, Message, Written
from ml.engines import JARS, KAFKA_JARS, class_path
from ml.errors import BadData, Stopped
from ml.scenario import load
from ml.settings import StreamSettings
from ml.spark import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming import StreamingQuery

_ROWS = 1_000  # at most, in one Arrow batch
_PATIENCE = 20.0  # seconds for a batch to end, once we are asked to
_SCHEMA = "topic STRING, key BINARY, value BINARY"
_ARROW = pa.schema([("topic", pa.string()), ("key", pa.binary()), ("value", pa.binary())])


def stream(settings: StreamSettings, env: Mapping[str, str], say: Callable[[dict[str, Any]], None]) -> None:
    """Answer until SIGTERM or SIGINT, and tell of each batch. Raises BadData, BadScenario, Stopped."""
    answers, topics = _usable(settings)
    conf = {
        "spark.driver.extraClassPath": class_path(env, KAFKA_JARS),
        "spark.sql.execution.arrow.maxRecordsPerBatch": str(_ROWS),
        # The newer reader ends the query after a batch that was cut off and is done again: apache/spark#55236.
        "spark.sql.streaming.disabledV2MicroBatchReaders": "org.apache.spark.sql.kafka010.KafkaSourceProvider",
    }
    with session({**env, JARS: ""}, settings.cores, conf=conf) as spark:
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # PySpark has set one for SIGINT
            signal.signal(number, lambda *_: stop.set())
        _run(_read(spark, settings, answers.topics[0]), settings, topics, stop, say)


def _usable(settings: StreamSettings) -> tuple[Answers, Callable[[], frozenset[str]]]:
    """What answers, and the names of all topics whenever asked. Everything that a person can mend is found here, before Spark starts."""
    from confluent_kafka import KafkaException

    from headrace.kafka import admin_client, ensure_topics

    answers: Answers = load(settings.answers, "SCORING_STREAM_ANSWERS")
    try:
        answers.open()
    except Exception as error:
        raise BadData(f"{settings.answers}: {in_a_line(error)}") from None
    admin = admin_client(settings.kafka_bootstrap_servers, settings.kafka_security)
    try:
        ensure_topics(admin, dict.fromkeys(answers.topics, settings.partitions))
    except KafkaException as error:
        raise BadData(f"Kafka at {settings.kafka_bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS): {error.args[0].str()}") from None
    return answers, lambda: frozenset(admin.list_topics(timeout=10).topics)


def _read(spark: "SparkSession", settings: StreamSettings, topic: str) -> "DataFrame":
    """The topic from its beginning, or from where the checkpoint says, a bounded part at a time."""
    reading = {
        "subscribe": topic,
        "startingOffsets": "earliest",
        "maxOffsetsPerTrigger": str(settings.max_messages),
        "kafka.isolation.level": "read_committed",
    }
    return spark.readStream.format("kafka").options(**options(settings), **reading).load()


def _run(
    requests: "DataFrame",
    settings: StreamSettings,
    topics: Callable[[], frozenset[str]],
    stop: threading.Event,
    say: Callable[[dict[str, Any]], None],
) -> None:
    busy, kafka = threading.Lock(), options(settings)

    def write(batch: "DataFrame", number: int) -> None:  # noqa: ARG001 - Spark gives it
        with busy:
            if stop.is_set():
                raise _Ending  # a batch that is not written must not count as done
            asked = batch.select("topic", "partition", "offset", "value")
            asked.mapInArrow(answering(settings.answers, topics()), _SCHEMA).write.format("kafka").options(**kafka).save()

    checkpoint = str(settings.checkpoint.absolute())
    writer = requests.writeStream.foreachBatch(write).option("checkpointLocation", checkpoint)
    query = writer.trigger(processingTime=f"{round(settings.seconds * 1000)} milliseconds").start()
    try:
        _watch(query, stop, say)
    except Exception as error:
        raise Stopped(f"{_said(error)} (what was answered stands in {checkpoint})") from None
    requests.sparkSession.sparkContext.setLogLevel("OFF")  # how a query ends is of no interest any more
    _end(query, busy)


class _Ending(Exception):
    """No batch begins any more."""


def _end(query: "StreamingQuery", busy: threading.Lock) -> None:
    """Have the batch in hand end and count as done, so that it is not answered again; one that takes too long is cut off."""
    until = time.monotonic() + _PATIENCE
    if busy.acquire(timeout=_PATIENCE):
        busy.release()
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < until:
        time.sleep(0.05)
    query.stop()


def _watch(query: "StreamingQuery", stop: threading.Event, say: Callable[[dict[str, Any]], None]) -> None:
    """Tell of each batch until `stop`. Raises what ended the query."""
    told = -1
    while not stop.is_set():
        if query.awaitTermination(0.2):
            return
        for done in query.recentProgress:
            if done["batchId"] > told and done["numInputRows"]:
                told = done["batchId"]
                say({"batch": told, "requests": done["numInputRows"], "seconds": done["durationMs"]["triggerExecution"] / 1000})


def answering(path: str, topics: Collection[str]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a worker of Spark does to its batches: messages in, what is to be written out."""

    def run_all(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        answer = opened(path)
        for batch in batches:
            columns = (batch.column(name).to_pylist() for name in ("topic", "partition", "offset", "value"))
            written = answer(list(zip(*columns, strict=True)), topics)
            if written:
                arrays = [pa.array(values, field.type) for values, field in zip(zip(*written, strict=True), _ARROW, strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=_ARROW)

    return run_all


_opened: dict[str, Callable[[Sequence[Message], Collection[str]], Sequence[Written]]] = {}


def opened(path: str) -> Callable[[Sequence[Message], Collection[str]], Sequence[Written]]:
    """What answers in this process: a worker lives for many batches."""
    if path not in _opened:
        _opened[path] = load(path, "SCORING_STREAM_ANSWERS").open()
    return _opened[path]


def options(settings: StreamSettings) -> dict[str, str]:
    """How Kafka's Java client reaches it, which says some things in another way than librdkafka."""
    security = settings.kafka_security
    told = {"kafka.bootstrap.servers": settings.kafka_bootstrap_servers, "kafka.security.protocol": security.protocol.upper()}
    if security.protocol.startswith("sasl"):
        module = "plain.PlainLoginModule" if security.mechanism == "PLAIN" else "scram.ScramLoginModule"
        name, password = (value.replace("\\", "\\\\").replace('"', '\\"') for value in (security.username, security.password))
        login = f'org.apache.kafka.common.security.{module} required username="{name}" password="{password}";'
        told |= {"kafka.sasl.mechanism": security.mechanism, "kafka.sasl.jaas.config": login}
    if security.ca_file:
        told |= {"kafka.ssl.truststore.type": "PEM", "kafka.ssl.truststore.location": str(Path(security.ca_file).absolute())}
    return told


def _said(error: Exception) -> str:
    """What ended a query, in one line: the innermost reason that Spark or a worker tells."""
    lines = [
        line.strip() for line in str(error).splitlines() if line.strip() and not line.strip().startswith(("at ", "File ", "***", "..."))
    ]
    return (lines[0] if lines else type(error).__name__)[:300]
