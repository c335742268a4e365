"""`headrace dlq` on the running platform: what is replayed arrives once, whatever is killed, and nothing goes round for ever."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaException, Producer
from typer.testing import CliRunner, Result

from cli.__main__ import app
from cli.dlq.filters import Filter
from cli.dlq.letters import open_letters
from cli.kafka import consumer_of, offsets_of, values_in
from headrace import dead_letter, event, kafka, replays
from headrace.dead_letter import DeadLetter, Reason
from tests.integration.consumers import ROOT, bootstrap, eventually, pair, produce, raw_event

pytestmark = pytest.mark.usefixtures("platform")

HEADRACE = ROOT / "bin" / "headrace"
LETTERS = "dead-letter.enricher"
MANY = 3000
RUNNER = CliRunner()


def headrace(*arguments: str) -> Result:
    """A command of `headrace dlq`, in this process: to start one of its own takes seconds."""
    return RUNNER.invoke(app, ["dlq", *arguments])


def replay(source: str, *arguments: str) -> dict[str, Any]:
    done = headrace("replay", "--source", source, "--json", *arguments)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return {name: found[name] for name in ("replayed", "refused", "looping", "done before")}


def outcomes(replayed: int = 0, refused: int = 0, looping: int = 0, before: int = 0) -> dict[str, int]:
    return {"replayed": replayed, "refused": refused, "looping": looping, "done before": before}


def ids(source: str) -> list[str]:
    """Of the letters of a source, the newest first."""
    return [json.loads(line)["dead_letter_id"] for line in headrace("list", "--json", "--source", source).stdout.splitlines()]


@pytest.fixture(scope="module")
def mark() -> str:
    """In the names of the sources of this run. Their dead letters are in the lake: the enricher would take all now but those called bad."""
    mark = uuid.uuid4().hex[:10]
    number = {"killed": MANY, "recorded": 3, "fenced": 400, "open": 1, "exported": 3}
    for name, count in number.items():
        source = f"{name}-{mark}"
        produce(LETTERS, [_letter(raw_event(f"{source}-{n}", source=source), n) for n in range(count)])
    bad = msgspec.Raw('{"größe":1}'.encode())
    for name in ("recorded", "exported"):
        produce(LETTERS, [_letter(raw_event("bad", source=f"{name}-{mark}", data=bad), 99)])
    produce(event.RAW_TOPIC, [pair(raw_event("e1", source=f"looping-{mark}", data=msgspec.Raw(b"{}")))])
    for name, count in {**number, "recorded": 4, "exported": 4, "looping": 1}.items():
        eventually(lambda source=f"{name}-{mark}": in_the_lake(source), count)  # type: ignore[misc]
    return mark


def _letter(of: event.RawEvent, number: int) -> tuple[bytes, bytes]:
    letter = DeadLetter(
        dead_letter_id=dead_letter.id_at("enricher", of.source, 0, number),
        service="enricher",
        reason=Reason.SCHEMA_INVALID,
        detail="an older schema",
        rejected_at=event.now(),
        payload=event.encode(of).decode(),
        id=of.id,
        source=of.source,
        type=of.type,
        received_at=of.received_at,
        origin_topic=event.RAW_TOPIC,
        origin_partition=0,
        origin_offset=number,
    )
    return letter.dead_letter_id.encode(), dead_letter.encode(letter)


def in_the_lake(source: str) -> int:
    return sum(1 for _ in open_letters(os.environ).distinct(Filter(source=(source,)), ("dead_letter_id",)))


def values(topic: str) -> list[bytes]:
    """What readers see in a topic, without the seconds that it takes to join a group."""
    with consumer_of(os.environ) as consumer:
        return list(values_in(consumer, topic, offsets_of(consumer, topic) or {}))


def sent(topic: str, source: str) -> list[event.RawEvent]:
    """The events of `source` in a topic."""
    found = (event.decode_raw(value) for value in values(topic) if source.encode() in value)
    return [one for one in found if one.source == source]


@pytest.fixture
def lenient(tmp_path: Path) -> Path:
    """Settings with schemas that let every button_click pass: a plan that was mended, and the enricher not started again with it."""
    schemas = tmp_path / "schemas"
    shutil.copytree(ROOT / os.environ["SCHEMAS_DIR"], schemas)
    path = schemas / "button_click" / "1-0-0.json"
    schema = json.loads(path.read_text())
    del schema["required"]
    path.write_text(json.dumps(schema))
    env = tmp_path / ".env"
    env.write_text(Path(os.environ["HEADRACE_ENV_FILE"]).read_text() + f"\nSCHEMAS_DIR={schemas}\n")
    return env


def test_a_replay_that_is_killed_again_and_again_sends_each_event_once(mark: str) -> None:
    source = f"killed-{mark}"
    assert replay(source, "--dry-run") == outcomes(replayed=MANY)
    assert sent(event.RAW_TOPIC, source) == []
    for _ in range(2):
        before = len(sent(event.RAW_TOPIC, source))
        with subprocess.Popen([HEADRACE, "dlq", "replay", "--source", source, "--rate", "200"]) as running:
            while len(sent(event.RAW_TOPIC, source)) <= before:
                assert running.poll() is None
                time.sleep(0.1)
            running.kill()
    part = len(sent(event.RAW_TOPIC, source))
    assert 400 <= part < MANY
    rest = replay(source, "--rate", "0")
    assert rest == outcomes(replayed=MANY - rest["done before"], before=rest["done before"])
    assert rest["done before"] >= part

    raw = sent(event.RAW_TOPIC, source)
    assert sorted(one.id for one in raw) == sorted(f"{source}-{n}" for n in range(MANY))
    origins = {replays.origin_of(one.receipt.collector_id) for one in raw}
    assert origins == {(dead_letter.id_at("enricher", source, 0, n), 1) for n in range(MANY)}
    eventually(lambda: len(sent(event.ENRICHED_TOPIC, source)), MANY)
    assert replay(source) == outcomes(before=MANY)
    assert len(sent(event.RAW_TOPIC, source)) == MANY


def test_what_is_refused_again_is_left_alone_unless_asked_for(mark: str, lenient: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"looping-{mark}"
    assert replay(source) == outcomes(refused=1), "the schema has not changed"
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(lenient))
    assert replay(source) == outcomes(replayed=1)
    eventually(lambda: in_the_lake(source), 2)
    assert replay(source) == outcomes(looping=1, before=1)
    second, first = ids(source)
    shown = json.loads(headrace("show", second, "--json").stdout)
    assert replays.origin_of(json.loads(shown["payload"])["receipt"]["collector_id"]) == (first, 1)
    assert replay(source, "--again") == outcomes(replayed=1, before=1)
    marks = [replays.origin_of(one.receipt.collector_id) for one in sent(event.RAW_TOPIC, source)]
    assert marks == [None, (first, 1), (second, 2)]


def test_the_record_says_who_replayed_what(mark: str) -> None:
    source = f"recorded-{mark}"
    assert replay(source, "--limit", "1", "--dry-run")["replayed"] == 1
    assert replay(source, "--limit", "4") == outcomes(replayed=3, refused=1)
    run = json.loads(headrace("replays", "--json").stdout.splitlines()[-1])
    assert (run["asked"], run["letters"]) == ({"source": source, "limit": "4"}, {"replayed": 3, "refused": 1})
    assert (run["by"], run["host"]) == (pwd.getpwuid(os.getuid()).pw_name, socket.gethostname())
    assert run["at"] < run["ended"]
    written = [replays.decode(value) for value in values(replays.TOPIC)]
    of_letters = [one for one in written if isinstance(one, replays.Judged) and one.run == run["run"]]
    said = sorted((one.outcome, one.to, one.reason) for one in of_letters)
    assert said == [("refused", None, "schema_invalid"), *[("replayed", "events.raw", None)] * 3]


def test_an_earlier_replay_is_fenced_off_by_a_later_one(mark: str) -> None:
    source = f"fenced-{mark}"
    slow = subprocess.Popen([HEADRACE, "dlq", "replay", "--source", source, "--rate", "10"], stderr=subprocess.PIPE, text=True)
    eventually(lambda: len(sent(event.RAW_TOPIC, source)) > 0, True)
    rest = replay(source)
    assert rest["replayed"] + rest["done before"] == 400
    _, said = slow.communicate(timeout=60)
    assert slow.returncode == 1
    assert "recorded; run the same again for the rest" in said
    assert len(sent(event.RAW_TOPIC, source)) == 400


def test_what_was_not_committed_is_never_seen(mark: str) -> None:
    """As after kill -9 between two calls: the next replay ends the open transaction, and takes nothing in it for done."""
    source = f"open-{mark}"
    (id,) = ids(source)
    producer = Producer(kafka.producer_config(bootstrap(), transactional_id="headrace.dlq-replay"))
    producer.init_transactions(30)
    producer.begin_transaction()
    done = replays.Judged(run="killed", at=event.now(), dead_letter_id=id, outcome="replayed")
    producer.produce(replays.TOPIC, replays.encode(done), id.encode())
    producer.produce(event.RAW_TOPIC, event.encode(raw_event("half", source=source)), b"half")
    producer.flush(30)
    assert replay(source) == outcomes(replayed=1)
    with pytest.raises(KafkaException):
        producer.commit_transaction(30)
    assert [one.id for one in sent(event.RAW_TOPIC, source)] == [f"{source}-0"]


def test_export_and_raw_bytes(mark: str) -> None:
    source = f"exported-{mark}"
    done = headrace("export", "--out", "-", "--source", source)
    exported = {one.dead_letter_id: one for one in map(dead_letter.decode, done.stdout.encode().splitlines())}
    assert len(exported) == 4
    assert done.stderr == "4 dead letters in standard output\n"
    for id, of in exported.items():
        assert headrace("show", id, "--raw").stdout_bytes == of.payload_bytes()
    counts = json.loads(headrace("stats", "--source", source, "--json").stdout)
    assert (counts["total"], counts["reason"], counts["type"]) == (4, {"schema_invalid": 4}, {"button_click": 4})
    missing = headrace("show", "no such id")
    assert (missing.exit_code, missing.stderr.count("\n")) == (1, 1)
