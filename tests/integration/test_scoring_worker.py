"""Scoring through a real Kafka: each requester has its answer once, also where the worker is killed in between."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from enrichment_api.queue.stage import REPLIES, REQUESTS
from headrace import dead_letter
from headrace.kafka import ensure_topics
from tests import models
from tests.collector_real_kafka import ROOT, RealKafka
from tests.enrichment_api_process import AWAY
from tests.integration.scoring import ask, messages, request
from verify.ports import free_port

MINE = f"{REPLIES}.team-a"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = RealKafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    ensure_topics(AdminClient({"bootstrap.servers": server.address}), {REQUESTS: 3, REPLIES: 1, MINE: 1})
    yield server.address
    server.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    models.release(folder, "v1", models.first_feature())  # the score is the quantity, so that an answer can be told from any other
    return folder


@contextmanager
def worker(kafka: str, folder: Path, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    own = {"METRICS_PORT": str(free_port()), "MAX_BATCH_MESSAGES": "100"} | settings
    env = {**os.environ, **AWAY, "KAFKA_BOOTSTRAP_SERVERS": kafka, **{f"SCORING_WORKER_{name}": value for name, value in own.items()}}
    env |= {"ENRICHMENT_API_MODEL_DIR": str(folder / "v1"), "ENRICHMENT_API_DATA_FILE": "none"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "enrichment_api.queue.main"], cwd=ROOT, env=env, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in (folder / "log").read_text(), (folder / "log").read_text()[-3000:]


def read(kafka: str, topic: str, wanted: set[str] | int, name: str = "correlation_id") -> dict[str, Any]:
    """The messages of `topic` until all of `wanted` (or so many) are there, by name. None may come twice."""
    values: dict[str, Any] = {}
    for some in messages(kafka, topic):
        for _, value in some:
            assert value[name] not in values, f"{value[name]} came twice"
            values[value[name]] = value
        if len(values) >= wanted if isinstance(wanted, int) else wanted <= set(values):
            break
    return values


def test_each_requester_finds_its_answers_in_its_topic(kafka: str, folder: Path) -> None:
    bad = [b"{", b'{"correlation_id":"x"}', request("away", 0.5, reply_to=f"{REPLIES}.nobody"), request("else", 0.5, reply_to="events.raw")]
    with worker(kafka, folder) as process:
        ask(kafka, request("a", 0.25), request("b", 0.5, MINE), *bad, request("c", 0.75, MINE), request("d", 0.5, type="login"))
        here, mine = read(kafka, REPLIES, {"a", "d"}), read(kafka, MINE, {"b", "c"})
        letters = read(kafka, "dead-letter.enricher", len(bad), "dead_letter_id")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    enrichment = here["a"]["enrichment"]["repurchase"]
    assert enrichment == {"model": "repurchase", "version": "v1", "score": 0.25, "features": "new", "variant": "champion"}
    assert here["d"]["enrichment"] == {}
    assert {name: reply["enrichment"]["repurchase"]["score"] for name, reply in mine.items()} == {"b": 0.5, "c": 0.75}
    assert set(here) == {"a", "d"}
    assert Counter(letter["reason"] for letter in letters.values()) == {"unparseable": 1, "malformed": 1, "invalid_attribute": 2}
    assert {letter["service"] for letter in letters.values()} == {"scoring-worker"}
    assert all(dead_letter.decode(json.dumps(letter).encode()).origin_topic == REQUESTS for letter in letters.values())


def test_who_asked_before_a_kill_is_answered_after_it_and_once(kafka: str, folder: Path) -> None:
    """The requests wait in Kafka, not in the worker: it is killed again and again, and each answer comes, with its own score."""
    names = [f"k-{number}" for number in range(5_000)]
    ask(kafka, *(request(name, (number % 64) / 64) for number, name in enumerate(names)))
    for _ in range(2):
        with worker(kafka, folder, MAX_BATCH_MESSAGES="50") as process:
            _until_some_are_answered(kafka)
            process.kill()
    with worker(kafka, folder):
        found = read(kafka, REPLIES, set(names))
    assert {found[name]["enrichment"]["repurchase"]["score"] == (number % 64) / 64 for number, name in enumerate(names)} == {True}


def _until_some_are_answered(kafka: str) -> None:
    next(messages(kafka, REPLIES, 120, auto_offset_reset="latest"))
