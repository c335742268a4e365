"""Scoring a stream by Spark through a real Kafka: each request is answered through a kill, where it asked to be, as the API answers it."""

import json
import os
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from enrichment_api.online import store
from enrichment_api.queue.stage import REPLIES, REQUESTS
from headrace.features import STATE
from headrace.kafka import ensure_topics
from runtime import java
from runtime.component import Place
from runtime.fetching import alone
from runtime.servers.models import Models
from runtime.servers.stream import ScoringStream, jars
from tests import models
from tests.collector_real_kafka import ROOT, RealKafka
from tests.enrichment_api_process import AWAY, enrichment_api
from tests.integration.scoring import ask, messages, request
from tests.redis_process import redis_server

pytestmark = pytest.mark.timeout(1500)
MINE = f"{REPLIES}.team-a"
COUNT, CUSTOMERS = 5_000, 100


@dataclass(frozen=True)
class Site:
    kafka: str
    redis: str
    folder: Path
    place: Place

    def environment(self, **settings: str) -> dict[str, str]:
        own = {"CHECKPOINT": str(self.folder / "checkpoint"), "MAX_MESSAGES": "200", "SECONDS": "0.2"} | settings
        env = {
            **os.environ,
            **AWAY,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            **{f"SCORING_STREAM_{name}": value for name, value in own.items()},
        }
        env |= {"ENRICHMENT_API_MODEL_DIR": str(self.folder / "v1"), "ENRICHMENT_API_DATA_FILE": "none", "STATE_DIR": str(self.folder)}
        env |= {"ENRICHMENT_API_FEATURES": "redis", "REDIS_URL": self.redis, "ML_SPARK_MEMORY": "1g"}
        return env | {"SPARK_KAFKA_JARS": str(jars(self.place)), "JAVA17_HOME": str(java.home())}

    def start(self, **settings: str) -> "subprocess.Popen[str]":
        with (self.folder / "log").open("a") as log:
            command = [str(self.place.venvs / "ml/bin/python"), "-m", "ml", "stream"]
            return subprocess.Popen(command, cwd=ROOT, env=self.environment(**settings), stdout=subprocess.PIPE, stderr=log, text=True)

    @contextmanager
    def streaming(self) -> Iterator["subprocess.Popen[str]"]:
        """Killed at the end, as a power cut would; its JVM ends by itself."""
        process = self.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Kafka, a Redis that knows every other customer, and a release that serves two versions."""
    folder = tmp_path_factory.mktemp("stream")
    place = Place(ROOT, {"STATE_DIR": str(folder)})
    with alone(place.servers / ".lock"):
        for part in (Models(), ScoringStream()):
            part.fetch(place, print)
    models.release(folder, "v1", models.of_all_features())
    models.release(folder, "v2", models.first_feature())
    (folder / "release.yaml").write_text("repurchase: {strategy: ab, champion: v1, challengers: {other: {model: v2, share: 0.3}}}\n")
    server = RealKafka(tmp_path_factory.mktemp("kafka"))
    server.start()
    try:
        ensure_topics(AdminClient({"bootstrap.servers": server.address}), {REQUESTS: 3, REPLIES: 1, MINE: 1})
        with redis_server(folder / "redis") as (url, _):
            store(url, 10).write(((("shop", f"c-{number}"), _state(number)) for number in range(0, CUSTOMERS, 2)), "test")
            yield Site(server.address, url, folder, place)
    finally:
        server.kill()


def _state(number: int) -> bytes:
    first, last = np.datetime64("2026-01-01", "us"), np.datetime64("2026-10-01", "us") + np.timedelta64(number, "h")
    return np.array((first, last, 2 + number, 5 + number, 60.5 + number), STATE).tobytes()


def _read(
    kafka: str, topic: str, process: "subprocess.Popen[str]", wanted: set[str] | int, name: str = "correlation_id"
) -> dict[str, list[tuple[bytes, Any]]]:
    """What came by name, once all of `wanted` (or so many) are there: of each one message or more."""
    found: dict[str, list[tuple[bytes, Any]]] = defaultdict(list)
    for some in messages(kafka, topic, 600, lambda: process.poll() is None):
        for key, value in some:
            found[value[name]].append((key, value))
        if len(found) >= wanted if isinstance(wanted, int) else wanted <= set(found):
            break
    return found


def test_through_a_kill_everyone_is_answered_as_the_api_answers(site: Site) -> None:
    asked = {
        f"k-{number}": request(f"k-{number}", (number % 64) / 64, MINE if number % 5 == 0 else None, subject=f"c-{number % CUSTOMERS}")
        for number in range(COUNT)
    }
    bad = [b"{", b'{"correlation_id":"x"}', request("away", 0.5, f"{REPLIES}.nobody"), request("else", 0.5, "events.raw")]
    ask(site.kafka, *list(asked.values())[: COUNT // 2], *bad, *list(asked.values())[COUNT // 2 :])
    with site.streaming() as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline())["requests"] for _ in range(5)]
        assert 0 < max(first) <= 200
    with site.streaming() as process:
        here = _read(site.kafka, REPLIES, process, {name for name, one in asked.items() if "reply_to" not in one})
        mine = _read(site.kafka, MINE, process, {name for name, one in asked.items() if "reply_to" in one})
        letters = _read(site.kafka, "dead-letter.enricher", process, len(bad), "dead_letter_id")
        process.send_signal(signal.SIGTERM)
        told = [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]
        assert process.returncode == 0, (site.folder / "log").read_text()[-3000:]
    assert all(batch["requests"] <= 200 for batch in told)
    assert sum(batch["requests"] for batch in told) <= COUNT + len(bad) - sum(first)  # it went on where the other was killed
    assert not set(here) & set(mine)
    assert set(here) | set(mine) == set(asked)
    expected = _by_the_api(site, list(asked.values()))
    for name, answers in {**here, **mine}.items():
        for key, answer in answers:
            assert (key.decode(), answer) == (name, {"correlation_id": name, "enrichment": expected[name]})
    assert {each["repurchase"]["features"] for each in expected.values()} == {"customer", "new"}
    assert {each["repurchase"]["variant"] for each in expected.values()} == {"champion", "other"}
    said = [letters[name][0][1] for name in letters]
    assert sorted((letter["reason"], letter["service"], letter["origin_topic"]) for letter in said) == [
        *[("invalid_attribute", "scoring-stream", REQUESTS)] * 2,
        ("malformed", "scoring-stream", REQUESTS),
        ("unparseable", "scoring-stream", REQUESTS),
    ]


def _by_the_api(site: Site, requests: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    release = {"FEATURES": "redis", "RELEASE_FILE": str(site.folder / "release.yaml")}
    with enrichment_api(site.folder, redis_url=site.redis, **release) as (url, _):
        for start in range(0, len(requests), 1_000):
            some = requests[start : start + 1_000]
            answer = httpx.post(f"{url}/v1/score", json={"events": [one["event"] for one in some]}, timeout=60)
            found |= {one["correlation_id"]: each for one, each in zip(some, answer.json()["enrichments"], strict=True)}
    return found


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"ANSWERS": "enrichment_api.queue.nothing:Answers"}, "ml stream: SCORING_STREAM_ANSWERS: enrichment_api.queue.nothing:Answers: "),
        ({"MAX_MESSAGES": "0"}, "SCORING_STREAM_MAX_MESSAGES: "),
        ({"SECNDS": "1"}, "setting SCORING_STREAM_SECNDS: no such setting"),
    ],
)
def test_what_cannot_begin_says_why_in_one_line(site: Site, settings: dict[str, str], line: str) -> None:
    (site.folder / "log").write_text("")
    process = site.start(**settings)
    assert process.wait(120) in (1, 2)
    said = (site.folder / "log").read_text()
    assert line in said
    assert "Traceback" not in said
