"""What one request may cost: no more than its size allows for, whatever is in it. Counted in calls and bytes, not in time."""

import asyncio
import base64
import gzip
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zstandard

from collector import cloudevents, jsontext, segment
from collector import rest as rest_module
from collector.accept import Limits, Outcome, Sending, TooMany, accept
from collector.admission import Admission
from collector.fast import judge_batch
from collector.http import Request
from collector.inflate import Corrupt, inflate
from collector.intake import Intake
from collector.otlp import JSON
from collector.otlp import events as otlp_events
from collector.rest import Rest
from collector.senders import Senders
from headrace import event
from headrace.dead_letter import Invalid
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits()
SENDING = Sending(event.Receipt(collector_id="c1", protocol="x", key_id="k"), "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
SEGMENT = segment.form("s", REGISTRY)
MEGABYTES = 1024 * 1024


def calls(work: Callable[[], object]) -> int:
    """How many functions, Python's and C's, `work` calls."""
    count = 0

    def note(_: FrameType, what: str, __: Any) -> None:
        nonlocal count
        count += what in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    except Invalid:
        pass
    finally:
        sys.setprofile(before)
    return count


def checking(data: bytes) -> int:
    """How many calls it takes to check `data`."""
    return calls(lambda: jsontext.check_object(data, 32))


def repeated(unit: bytes, size: int) -> bytes:
    return (unit * (size // len(unit))).rstrip(b",")


TRAPS: dict[str, Callable[[int], bytes]] = {
    "an open string of quotes": lambda size: b'{"' + repeated(rb"\"", size),
    "closed ones": lambda size: b'{"a b":["' + repeated(rb"\"", size) + b'"' + b",[]" * 50 + b"]}",
    "empty strings": lambda size: b'{"a b":[' + repeated(b'"",', size) + b",[]" * 50 + b"]}",
    "empty arrays": lambda size: b'{"a b":[' + repeated(b"[],", size) + b"]}",
    "numbers": lambda size: b'{"a b":[' + repeated(b"1,", size) + b"]}",
    "dots": lambda size: b'{"' + repeated(b"a.", size) + b'a":1}',
    "blanks": lambda size: b'{"' + repeated(b" ", size) + b'a":1}',
    "one key again and again": lambda size: b"{" + repeated(b'"a":1,', size) + b"}",
    "many odd keys": lambda size: b"{" + b",".join(b'"%x ":1' % n for n in range(size // 10)) + b"}",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_the_check_of_data_makes_a_few_passes(trap: str) -> None:
    few, many = (checking(TRAPS[trap](size)) for size in (4_000, 32_000))
    assert many <= max(few, 200), "the number of calls does not grow with the text"


@pytest.mark.parametrize("unit", [b'{"a":1},', b'{"a b":1},', b'[{"a":[]}],'])
def test_objects_cost_the_same_each(unit: bytes) -> None:
    few, many = (checking(b'{"a b":[' + repeated(unit, size) + b"]}") for size in (4_000, 32_000))
    assert many <= 8.5 * few


@pytest.mark.parametrize("fill", [rb"\n", rb"\ud83d\ude80", rb"\ud83d", rb"\\", rb"\\\ude80"])
def test_surrogates_are_mended_in_a_few_passes(fill: bytes) -> None:
    text = b'"' + fill * 10_000 + rb'\ud800"'
    assert calls(lambda: jsontext.without_lone_surrogates(text)) < 100
    assert len(jsontext.without_lone_surrogates(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        (rb"\ud800", rb"\ufffd"),
        (rb"\udc00\ud800", rb"\ufffd\ufffd"),
        (rb"\ud800\ud800\udc00\udc00", rb"\ufffd\ud800\udc00\ufffd"),
        (rb"\\ud800\\\ud800\"\uD800", rb"\\ud800\\\ufffd\"\ufffd"),
        (rb"\ud800\\udc00", rb"\ufffd\\udc00"),
        (rb"\uD83D\uDE80\udbff\udfff", rb"\uD83D\uDE80\udbff\udfff"),
    ],
)
def test_which_surrogates_are_alone(text: bytes, mended: bytes) -> None:
    assert jsontext.without_lone_surrogates(text) == mended


def logs(body: bytes) -> Outcome:
    return accept(*otlp_events.read(body, JSON, REGISTRY, LIMITS), SENDING)


def many(unit: bytes) -> bytes:
    return repeated(unit + b",", 4_000_000)


@pytest.mark.parametrize("unit", [b"1", b"{}", b"[]", b'""', b"null"])
@pytest.mark.parametrize("form", ["cloudevents", "segment", "resources", "scopes", "records", "attributes"])
def test_millions_of_events_are_not_even_read(form: str, unit: bytes) -> None:
    cases: dict[str, tuple[bytes, Callable[[bytes], Outcome]]] = {
        "cloudevents": (b"[%b]", lambda body: judge_batch(body, cloudevents.FORM, SENDING, None)),
        "segment": (b'{"batch":[%b]}', lambda body: judge_batch(body, SEGMENT, SENDING, None)),
        "resources": (b'{"resourceLogs":[%b]}', logs),
        "scopes": (b'{"resourceLogs":[{"scopeLogs":[%b]}]}', logs),
        "records": (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}', logs),
        "attributes": (b'{"resourceLogs":[{"resource":{"attributes":[%b]},"scopeLogs":[{"logRecords":[{}]}]}]}', logs),
    }
    body, judge = cases[form]
    sent = body % many(unit)
    tracemalloc.start()
    try:
        if form == "attributes":
            (rejection,) = judge(sent).rejected
            assert rejection.letter.reason == "too_large"
        else:
            with pytest.raises(TooMany):
                judge(sent)
        assert tracemalloc.get_traced_memory()[1] < 24 * MEGABYTES, "a few copies of the body"
    finally:
        tracemalloc.stop()


def test_a_lone_surrogate_in_a_log_costs_no_other_record() -> None:
    body = rb'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"\ud800"}},{"body":{"stringValue":"\ufffd"}}]}]},'
    body += rb'{"scopeLogs":[{"logRecords":[{}]}],"resource":{"attributes":[{"key":"a","value":{"stringValue":"\ude80"}}]}}]}'
    outcome = logs(body)
    assert [one.index for one in outcome.rejected] == [0, 2]
    assert len(outcome.messages) == 1
    assert rb"\ud800" in outcome.rejected[0].letter.payload_bytes()
    assert rb"\ude80" in outcome.rejected[1].letter.payload_bytes()


@pytest.mark.parametrize(
    "body",
    [b'{"resourceLogs":[[null]]}', b'{"resourceLogs":[{"scopeLogs":[[]]}]}', b'{"resourceLogs":5}', b'{"resourceLogs":[null]}', b"[]"],
)
def test_logs_of_another_form_are_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(Invalid, match="resourceLogs"):
        logs(body)


def test_compressed_parts_have_a_number() -> None:
    for encoding, part in {"gzip": gzip.compress(b"a"), "zstd": zstandard.compress(b"a")}.items():
        assert inflate(part * 1000, encoding, 5000) == b"a" * 1000
        with pytest.raises(Corrupt, match="1000 compressed parts"):
            inflate(part * 1001, encoding, 5000)


def test_a_long_name_is_looked_for_as_it_is_only() -> None:
    assert segment._type_named("Page" + " " * 100 + "View", REGISTRY) == "page_view"
    name = "Page" + " " * 1000 + "View"
    assert segment._type_named(name, REGISTRY) == name


class _Outbox:
    problem: str | None = None
    spooling = False

    def takes(self, _: object) -> bool:
        return False

    async def put(self, messages: list[tuple[bytes, bytes]], rejected: list[tuple[bytes, bytes]]) -> None:
        pass


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize(("size", "aside"), [(1_000, False), (200_000, False), (300_000, True)])
def test_large_bodies_leave_the_event_loop_free(size: int, aside: bool, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []

    def noted(*arguments: Any) -> Outcome:
        where.append(threading.get_ident())
        return judge_batch(*arguments)

    monkeypatch.setattr(rest_module, "judge_batch", noted)
    intake = Intake(REGISTRY, LIMITS, Senders({"k": "s"}, "c", "p"), _Outbox(), Admission(1), fast=None)  # type: ignore[arg-type]
    rest = Rest(intake, max_body=400_000)
    body = b"[" + b" " * (size - 2) + b"]"
    headers = {"authorization": "Basic " + base64.b64encode(b"k:").decode(), "content-encoding": encoding}

    def answered(body: bytes) -> int:
        packed = gzip.compress(body) if encoding == "gzip" else body
        return asyncio.run(rest.answer(Request("POST", "/v1/events", b"", headers, packed, None))).status

    assert answered(body) == 200
    assert [one != threading.get_ident() for one in where] == [aside]
    assert answered(b"[" + b" " * 400_000 + b"]") == 413
    assert answered(b"[" + b" " * (size - 2)) == 400


def test_few_bytes_that_are_many_records_leave_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []

    def noted(*arguments: Any) -> Outcome:
        where.append(threading.get_ident())
        return accept(*arguments)

    monkeypatch.setattr(rest_module, "accept", noted)
    intake = Intake(REGISTRY, LIMITS, Senders({"k": "s"}, "c", "p"), _Outbox(), Admission(1), fast=None)  # type: ignore[arg-type]
    rest = Rest(intake, max_body=4_000_000)
    headers = {"authorization": "Bearer k", "content-type": JSON}
    for size, aside in ((100, False), (2_000, True)):
        resource = b'{"attributes":[{"key":"a","value":{"stringValue":"%b"}}]}' % (b"x" * size)
        body = b'{"resourceLogs":[{"resource":%b,"scopeLogs":[{"logRecords":[%b]}]}]}' % (resource, b",".join([b"{}"] * 500))
        answer = asyncio.run(rest.answer(Request("POST", "/v1/logs", b"", headers, body, None)))
        assert (answer.status, answer.body) == (200, b"{}")
        assert where.pop() != threading.get_ident() if aside else where.pop() == threading.get_ident()
