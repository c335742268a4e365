"""librdkafka's in-process broker as a real TCP address, with its faults: what no healthy server does on demand."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

PRODUCE = 0  # Kafka's number of the Produce request


class MockKafka:
    """A broker in this process. Topics come into being when they are asked for, with `partitions` partitions."""

    def __init__(self, partitions: int = 3) -> None:
        folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
        self._lib = lib = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
        for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
            getattr(lib, name).restype = ctypes.c_void_p
        lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        error = ctypes.create_string_buffer(500)
        self._client = ctypes.c_void_p(lib.rd_kafka_new(0, ctypes.c_void_p(lib.rd_kafka_conf_new()), error, len(error)))
        self._cluster = ctypes.c_void_p(lib.rd_kafka_mock_cluster_new(self._client, 1))
        for topic in ("events.raw", "dead-letter.collector"):
            self.make_topic(topic, partitions)
        self.address: str = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def make_topic(self, name: str, partitions: int) -> None:
        """One that is not made by being asked for, or with another number of partitions."""
        self._do("rd_kafka_mock_topic_create", name.encode(), partitions, 1)

    def stop(self) -> None:
        """The broker closes its connections and takes no new ones."""
        self._do("rd_kafka_mock_broker_set_down", 1)

    def start(self) -> None:
        """The broker is back."""
        self._do("rd_kafka_mock_broker_set_up", 1)

    def delay(self, milliseconds: int) -> None:
        """Each answer takes this long."""
        self._do("rd_kafka_mock_broker_set_rtt", 1, milliseconds)

    def fail_produce(self, *errors: int) -> None:
        """The next Produce requests are answered with these error codes of the protocol."""
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(PRODUCE), ctypes.c_size_t(len(errors)), (ctypes.c_int * len(errors))(*errors)
        )

    def close(self) -> None:
        self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
        self._lib.rd_kafka_destroy(self._client)

    def _do(self, name: str, *arguments: object) -> None:
        error = getattr(self._lib, name)(self._cluster, *arguments)
        assert error == 0, f"{name}{arguments}: error {error}"


@contextmanager
def mock_kafka(partitions: int = 3) -> Iterator[MockKafka]:
    broker = MockKafka(partitions)
    try:
        yield broker
    finally:
        broker.close()
