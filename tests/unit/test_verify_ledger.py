"""The checker's ledger and what it sends."""

import asyncio
import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from collector.v1 import collector_pb2 as pb
from verify import ledger
from verify.events import Factory, Kind, Protocol, Request, canonical
from verify.ledger import Intent, Ledger, Outcome, Result, Sent


def sent(id: str) -> Sent:
    return Sent(id, "purchase", "good", "purchase", "aa", "bb")


def written(path: Path) -> None:
    async def write(into: Ledger) -> None:
        await asyncio.gather(*(into.intend(Intent(n, 10.0 + n, "rest", 1, [sent(f"a-{n}"), sent(f"b-{n}")])) for n in range(3)))
        into.result(Result(0, 11.0, Outcome.OK, 200))
        into.result(Result(1, 12.0, Outcome.FAIL, 415))

    with Ledger(path) as into:
        asyncio.run(write(into))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    written(path)
    rows = [(row.event.id, row.outcome, row.status, row.at) for row in ledger.read(path)]
    assert sorted(rows) == [
        ("a-0", "ok", 200, 11.0),
        ("a-1", "fail", 415, 12.0),
        ("a-2", "info", 0, 0.0),  # no outcome: it may have arrived
        ("b-0", "ok", 200, 11.0),
        ("b-1", "fail", 415, 12.0),
        ("b-2", "info", 0, 0.0),
    ]


def test_an_intent_is_on_disk_before_its_future_is_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger"

    async def write(into: Ledger) -> bytes:
        await into.intend(Intent(7, 1.0, "grpc", 2, [sent("x")]))
        return path.read_bytes()

    with Ledger(path) as into:
        said = asyncio.run(write(into))
    assert json.loads(said) == {
        "what": "intent",
        "request": 7,
        "at": 1.0,
        "protocol": "grpc",
        "attempt": 2,
        "events": [["x", "purchase", "good", "purchase", "aa", "bb"]],
    }


def test_a_line_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    written(path)
    before = len(list(ledger.read(path)))
    path.write_bytes(path.read_bytes() + b'{"what":"intent","request":9')
    assert len(list(ledger.read(path))) == before


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"what":"result","request":9,"at":1,"outcome":"ok","status":200}\n', "request 9 has an outcome and no intent"),
        (b'{"what":"result","request":0,"at":1,"outcome":"ok","status":200}\n', "request 0 has two outcomes"),
    ],
)
def test_a_ledger_that_cannot_be_is_refused(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "ledger"
    written(path)
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ValueError, match=problem):
        list(ledger.read(path))


def test_the_longest_gap() -> None:
    assert ledger.longest_gap([1.0, 2.0, 5.5, 6.0]) == 3.5
    assert ledger.longest_gap([1.0]) == 0.0


def requests(seed: int, count: int = 600) -> list[Request]:
    factory = Factory("run", seed)
    made = []
    for _ in range(count):
        made.append(factory.request())
        factory.acknowledged(made[-1])
    return made


def test_the_same_seed_sends_the_same() -> None:
    assert requests(3) == requests(3)
    assert requests(3) != requests(4)


def test_every_kind_is_sent_and_ids_are_repeated_only_where_meant() -> None:
    made = requests(2)
    assert {event.kind for request in made for event in request.events} == set(Kind)
    assert {request.refusal for request in made} == {0, 401, 413, 415}
    times = Counter(event.id for request in made for event in request.events)
    again = sum(times.values()) - len(times)
    assert 0.01 < again / sum(times.values()) < 0.05
    contents: dict[str, set[bytes]] = {}
    for request in made:
        for event in request.events:
            if event.kind in (Kind.GOOD, Kind.ENRICHMENT_FAILS):
                contents.setdefault(event.id, set()).add(event.payload)
    assert {len(payloads) for payloads in contents.values()} == {1}
    assert len({payload for payloads in contents.values() for payload in payloads}) == len(contents), "no two events have the same data"


def test_what_goes_out_holds_the_payloads_byte_for_byte() -> None:
    for request in requests(2, 100):
        body = request.body()
        if request.protocol is Protocol.GRPC:
            said = pb.PublishRequest.FromString(body).events
            assert [one.id for one in said] == [event.id for event in request.events]
            assert all(event.payload in (one.json, event.text) for one, event in zip(said, request.events, strict=True))
        elif request.events[0].kind is Kind.UNPARSEABLE:
            with pytest.raises(json.JSONDecodeError):
                json.loads(body)
        else:
            assert [one["id"] for one in json.loads(body)] == [event.id for event in request.events]
            assert all(event.payload in body for event in request.events)


def test_the_hash_for_search_does_not_depend_on_spelling() -> None:
    event = next(event for request in requests(2) for event in request.events if event.type == "page_view" and event.kind is Kind.GOOD)
    other = event._replace(payload=json.dumps(dict(reversed(json.loads(event.payload).items())), indent=3).encode())
    assert other.payload_sha256() != event.payload_sha256()
    assert other.search_sha256() == event.search_sha256()
    assert event.search_sha256() == hashlib.sha256(canonical(event.payload).encode()).hexdigest()


def test_canonical_json_is_that_of_trino() -> None:
    text = '{"b": [1, null, true], "a": "\\u0001\\u001f 🚀 größe \\"\\\\ \\n", "c": 12.5}'
    assert canonical(text.encode()) == '{"a":"\\u0001\\u001F \\uD83D\\uDE80 größe \\"\\\\ \\n","b":[1,null,true],"c":12.5}'
