"""A Kafka of one's own, to be killed and frozen: the same server as the platform's, on free ports, in a folder of its own."""

import os
import subprocess
import time
from pathlib import Path

from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime.component import Place
from runtime.servers.kafka import Kafka
from verify.ports import free_port

ROOT = Path(__file__).parent.parent


class RealKafka:
    """One broker with the platform's topics."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        env = {
            "BIND_HOST": "127.0.0.1",
            "KAFKA_PORT": str(port),
            "KAFKA_CONTROLLER_PORT": str(free_port()),
            "KAFKA_PARTITIONS": "3",
            "STATE_DIR": str(folder),
        }
        place = Place(ROOT, env)
        server = Kafka()
        server.configure(place)
        (self._program,) = server.programs(place)
        self._log = folder / "kafka.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._program.command, stdout=log, stderr=log)
        while not self._program.ready():
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            time.sleep(0.1)
        if self._program.provision:
            self._program.provision()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def empty(self) -> None:
        """Delete every message, so that who reads all reads what came after."""
        admin = AdminClient({"bootstrap.servers": self.address})
        topics = {name: topic for name, topic in admin.list_topics(timeout=10).topics.items() if not name.startswith("__")}
        ends = [TopicPartition(name, number, OFFSET_END) for name, topic in topics.items() for number in topic.partitions]
        until = time.monotonic() + 60
        while problems := [problem for done in admin.delete_records(ends).values() if (problem := done.exception())]:
            assert time.monotonic() < until, problems
            time.sleep(0.2)  # one that has just started leads no partition yet

    def signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """As a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
