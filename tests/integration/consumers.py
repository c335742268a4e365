"""What the tests of the consumers share: topics of their own, events, processes that are killed, and servers that go away."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from headrace import event, kafka
from headrace.event import EnrichedEvent, RawEvent, Receipt
from headrace.service import Topics
from verify.ports import free_port

ROOT = Path(__file__).parents[2]
_PREFIX = {"enricher": "ENRICHER", "realtime-loader": "REALTIME_LOADER", "batch-loader": "BATCH_LOADER"}
CLICK = b'{"button_id": "buy",\n "price": 1.50, "text": "\\u00e4"}'


def bootstrap() -> str:
    return os.environ["KAFKA_BOOTSTRAP_SERVERS"]


@contextmanager
def topics(partitions: int = 3) -> Iterator[Topics]:
    """Topics that no platform reads."""
    ours = Topics(f"test-{uuid.uuid4().hex[:10]}.")
    admin = AdminClient({"bootstrap.servers": bootstrap()})
    wanted = {ours.raw: partitions, ours.enriched: partitions} | dict.fromkeys(ours.to_load[1:], 1)
    kafka.ensure_topics(admin, wanted)
    try:
        yield ours
    finally:
        for done in admin.delete_topics(list(wanted)).values():
            done.result()


def raw_event(id: str, **changed: Any) -> RawEvent:
    values: dict[str, Any] = {
        "id": id,
        "source": "consumers-test",
        "type": "button_click",
        "time": event.now(),
        "received_at": event.now(),
        "dataschema": "button_click/1-0-0",
        "data": msgspec.Raw(CLICK),
        "receipt": Receipt(collector_id="test", protocol="cloudevents", key_id="k"),
    }
    return RawEvent(**(values | changed))


def enriched_event(id: str, **changed: Any) -> EnrichedEvent:
    raw = msgspec.structs.asdict(raw_event(id))
    return EnrichedEvent(**({**raw, "enriched_at": event.now()} | changed))


def scores_required(folder: Path) -> str:
    """A copy of the platform's schemas in `folder`, with a plan where purchases wait for their score."""
    shutil.copytree(ROOT / "schemas", folder / "schemas")
    plan = folder / "schemas" / "tracking_plan.yaml"
    text = plan.read_text()
    assert "enrich: {repurchase: optional}" in text
    plan.write_text(text.replace("enrich: {repurchase: optional}", "enrich: {repurchase: required}"))
    return str(folder / "schemas")


def pair(of: RawEvent) -> tuple[bytes, bytes]:
    """Key and value as they stand in Kafka."""
    return event.identity_key(of.source, of.id), event.encode(of)


def produce(topic: str, pairs: Iterable[tuple[bytes, bytes]]) -> None:
    producer = Producer({**kafka.producer_config(bootstrap()), "queue.buffering.max.messages": 1_000_000})
    for key, value in pairs:
        producer.produce(topic, value, key)
    assert producer.flush(60) == 0


def read_all(topic: str) -> list[Any]:
    """All committed messages of a topic up to now, partition after partition in order."""
    consumer = Consumer({**kafka.consumer_config(bootstrap(), f"test-{uuid.uuid4().hex}"), "enable.partition.eof": True})
    partitions = AdminClient({"bootstrap.servers": bootstrap()}).list_topics(topic, timeout=10).topics[topic].partitions
    consumer.subscribe([topic])
    found: list[Any] = []
    ended: set[int | None] = set()
    try:
        while len(ended) < len(partitions):
            for message in consumer.consume(10_000, 1.0):
                error = message.error()
                if error is None:
                    found.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
    finally:
        consumer.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def ids_in(topic: str) -> list[str]:
    return [event.decode_raw(message.value()).id for message in read_all(topic)]


def eventually(look: Callable[[], object], wanted: object, seconds: float = 90) -> None:
    """Look again and again until the answer is `wanted`, and let the assertion say the last answer where it never is."""
    until = time.monotonic() + seconds
    while (found := look()) != wanted and time.monotonic() < until:
        time.sleep(0.3)
    assert found == wanted, f"it is {found!r} to the end, not {wanted!r}"


class ConsumerProcess:
    """A consumer in a process of its own. The same `instance` started again takes over where the last one was."""

    def __init__(self, name: str, ours: Topics, instance: str = "0", namespace: str = "bronze", **settings: str) -> None:
        prefix = _PREFIX[name]
        self.log = Path(tempfile.mkstemp(prefix="consumer-", suffix=".log")[1])
        self._metrics_port = free_port()
        mine = {"GROUP": f"{ours.prefix}{name}", "INSTANCE": instance, "METRICS_PORT": str(self._metrics_port)}
        settings = {f"{prefix}_{key}": value for key, value in mine.items()} | settings
        self._command = [sys.executable, str(Path(__file__).with_name("consumer_process.py")), name, ours.prefix, namespace]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMAS_DIR": str(ROOT / "schemas"), **settings}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        print(self.said()[-8000:])  # pytest shows it where a test fails
        self.log.unlink()

    def start(self) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stderr=log, cwd=ROOT)

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 60) -> int:
        return self._process.wait(seconds)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def metric(self, name: str) -> dict[str, float]:
        """Of each of its label values (joined by commas), as a Prometheus server would read it."""
        page = httpx.get(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=30).text
        families = text_string_to_metric_families(page)
        return {",".join(one.labels.values()): one.value for family in families for one in family.samples if one.name == name}

    def said(self) -> str:
        return self.log.read_text()


class Supervised(ConsumerProcess):
    """One that is started again whenever it ends in any way but well, as the supervisor does."""

    def start(self) -> None:
        self.ends: list[int] = []
        self._over = threading.Event()
        super().start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while (code := self._process.wait()) != 0 and not self._over.is_set():
            self.ends.append(code)
            super().start()

    def stop(self) -> int:
        self._over.set()
        return super().stop()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._process.poll() is None:
            self._process.kill()
        self._thread.join()
        self._forget()


class Gate:
    """A TCP way to a real server, which can be shut: then connections are cut and new ones refused."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._port = free_port()
        self._listener: socket.socket | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self._port}".lstrip("@")).geturl()

    @classmethod
    def before(cls, setting: str) -> Self:
        """Before the server that a setting has the address of."""
        return cls(os.environ[setting])

    def open(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen()
        self._listener = listener
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for both in self._pairs:
            for end in both:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._pairs.clear()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(self._target)
            except OSError:
                return
            self._pairs.append((near, far))
            threading.Thread(target=_pump, args=(near, far), daemon=True).start()


def _pump(near: socket.socket, far: socket.socket) -> None:
    other = {near: far, far: near}
    try:
        while True:
            for ready in select.select(list(other), [], [])[0]:
                data = ready.recv(65536)
                if not data:
                    return
                other[ready].sendall(data)
    except (OSError, ValueError):
        pass
    finally:
        near.close()
        far.close()


def duplicates(values: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return [value for value in values if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
