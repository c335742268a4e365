"""The producers against the running collector: what they say was sent stands in Kafka."""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from headrace import dead_letter, event
from producers.cdnow.purchases import read_purchases
from producers.simulate.visits import sessions

pytestmark = pytest.mark.usefixtures("platform")

LETTERS = dead_letter.TOPIC_PREFIX + "collector"


class Tail:
    """What was written to a topic since this was made."""

    def __init__(self, topic: str) -> None:
        servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": "tests", "enable.auto.commit": False})
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._from = [TopicPartition(topic, p, self._end(topic, p)) for p in partitions]

    def _end(self, topic: str, partition: int) -> int:
        end: int = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
        return end

    def values(self) -> list[bytes]:
        """All values from then until now."""
        self._consumer.assign(self._from)
        left = {each.partition: self._end(each.topic, each.partition) for each in self._from}
        left = {each.partition: left[each.partition] for each in self._from if left[each.partition] > each.offset}
        values = []
        while left:
            message = self._consumer.poll(10)
            assert message is not None
            assert message.error() is None, message.error()
            partition, offset = message.partition() or 0, message.offset() or 0
            if offset < left.get(partition, 0):
                values.append(message.value() or b"")
            if offset + 1 >= left.get(partition, 0):
                left.pop(partition, None)
        return values

    def ids(self, source: str) -> list[str]:
        """The ids of the events of `source` among them."""
        return [raw.id for raw in map(event.decode_raw, self.values()) if raw.source == source]


def _command(state: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "producers.cdnow", "--data", os.environ["ENRICHMENT_API_DATA_FILE"], *options]
    return command, {**os.environ, "STATE_DIR": str(state)}


def _replay(state: Path, *options: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    command, env = _command(state, *options)
    return subprocess.run(command, env=env | changes, capture_output=True, text=True, check=False, timeout=120)


def _position(state: Path) -> int:
    file = state / "data" / "cdnow-replay" / "position.json"
    return int(json.loads(file.read_bytes())["sent"]) if file.exists() else 0


def _in_order(count: int) -> list[str]:
    """The ids of the first purchases by date. Sent again they are the same events: no harm to a platform that has them already."""
    return [purchase.id for purchase in read_purchases(Path(os.environ["ENRICHMENT_API_DATA_FILE"]))[:count]]


def test_a_replay_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    tail = Tail(event.RAW_TOPIC)
    first = _replay(tmp_path, "--speed", "max", "--limit", "700")
    assert (first.returncode, _position(tmp_path)) == (0, 700), first.stderr
    assert json.loads(first.stderr.splitlines()[-1])["rejected"] == {}
    second = _replay(tmp_path, "--speed", "max", "--limit", "300")
    assert (second.returncode, _position(tmp_path)) == (0, 1000), second.stderr
    assert json.loads(second.stderr.splitlines()[-1])["sent"] == 300
    assert set(_in_order(1000)) <= set(tail.ids("cdnow"))
    again = _replay(tmp_path, "--speed", "max", "--limit", "10", "--restart")
    assert (again.returncode, _position(tmp_path)) == (0, 10), again.stderr


def test_a_replay_ends_where_the_settings_say_unless_the_command_does(tmp_path: Path) -> None:
    for most, options, position in (("0", (), 0), ("30", (), 30), ("20", (), 30), ("20", ("--limit", "5"), 35)):
        done = _replay(tmp_path, "--speed", "max", *options, CDNOW_REPLAY_EVENTS=most)
        assert (done.returncode, _position(tmp_path)) == (0, position), done.stderr
    refused = _replay(tmp_path, CDNOW_REPLAY_EVENTS="-1")
    assert (refused.returncode, _position(tmp_path)) == (2, 35), refused.stderr
    assert "CDNOW_REPLAY_EVENTS" in refused.stderr


def test_a_killed_replay_loses_nothing(tmp_path: Path) -> None:
    tail = Tail(event.RAW_TOPIC)
    for stop in (100, 250, 400):
        command, env = _command(tmp_path, "--speed", "200")
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
        while _position(tmp_path) < stop:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        assert process.wait(10) == -9
    sent = _position(tmp_path)
    assert sent >= 400
    assert set(_in_order(sent)) <= set(tail.ids("cdnow"))


def test_a_wrong_key_is_said_in_one_line(tmp_path: Path) -> None:
    ended = _replay(tmp_path, "--limit", "1", HEADRACE_WRITE_KEY="not-the-write-key")
    assert ended.returncode == 1
    assert "the collector answered 401 (unauthorized)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert _position(tmp_path) == 0


def test_what_is_simulated_arrives_once_and_what_is_bad_is_refused() -> None:
    seed, count = random.randrange(10**6, 10**9), 900
    expected = list(islice(sessions(seed, 0.1), count))
    accepted = [each.attributes["id"] for each in expected if each.refusal is None or each.refusal.by == "enricher"]
    refused = Counter(each.refusal.reason for each in expected if each.refusal and each.refusal.by != "enricher")
    raw, letters = Tail(event.RAW_TOPIC), Tail(LETTERS)
    command = [sys.executable, "-m", "producers.simulate", "--seed", str(seed), "--rate", "max", "--events", str(count), "--bad", "0.1"]
    ended = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "900 events sent" in ended.stdout
    arrived = Counter(id for id in raw.ids("simulate") if id.startswith(f"sim-{seed}-"))
    assert arrived == Counter(accepted)
    mine = [letter for letter in map(dead_letter.decode, letters.values()) if f"sim-{seed}-bad-" in letter.payload]
    assert Counter(letter.reason for letter in mine) == refused
