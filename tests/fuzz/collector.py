"""Coverage-guided fuzzing (atheris) of what reads a client's bytes: `python -m tests.fuzz.collector TARGET [libFuzzer's options]`.

A target passes where nothing is raised but what is documented, n events in are n out, and Python and native code say the same. What it
finds goes into the unit tests as an example, mended.
"""

import base64
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import atheris
import brotli
import hpack
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

with atheris.instrument_imports(include=["collector", "headrace"]):
    import msgspec

    from collector import cloudevents, jsontext, otlp, segment
    from collector.accept import Limits, Outcome, Sending, TooMany, accept
    from collector.fast import BUILT, Fast, judge_batch, judge_one
    from collector.inflate import ENCODINGS, Corrupt, TooLong, inflate
    from collector.otlp import events as otlp_events
    from collector.reading import Form
    from collector.senders import write_key_of
    from headrace import dead_letter, event
    from headrace.dead_letter import Invalid
    from headrace.registry import Registry
    from tests.http2_peer import PREFACE, Wire, fields, message, split

ROOT = Path(__file__).parents[2]
REGISTRY = Registry.load(ROOT / "schemas")
LIMITS = Limits(event_bytes=2000, events=20, depth=8)
SENDING = Sending(event.Receipt(collector_id="c", protocol="x", key_id="k"), "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
SEGMENT = segment.form("website", REGISTRY)
FAST = Fast(REGISTRY, LIMITS) if BUILT else None
MAX_INFLATED = 10_000

EVENT = {
    "specversion": "1.0", "id": "e1", "source": "shop", "type": "purchase", "time": "2026-01-31T12:00:00.5Z", "subject": "größe",
    "dataschema": "purchase/1-0-0", "data": {"quantity": 1, "amount_usd": 9.5, "a.b c": [{"x": None}], "e": "\U0001f680\x00"},
}  # fmt: skip
CALL = {
    "type": "track", "event": "Order Completed", "messageId": "m1", "userId": 1, "timestamp": "2026-01-31T12:00:00Z",
    "properties": {"a": 1}, "traits": {}, "context": {"traits": {"b": 2}}, "name": "n", "groupId": "g",
}  # fmt: skip
RECORD = {
    "timeUnixNano": "1", "severityNumber": 9, "body": {"kvlistValue": {"values": [{"key": "a", "value": {"doubleValue": "NaN"}}]}},
    "attributes": [{"key": "event.name", "value": {"stringValue": "login"}}, {"key": "n", "value": {"arrayValue": {"values": [{}]}}}],
}  # fmt: skip
LOGS = {
    "resourceLogs": [{"resource": {"attributes": RECORD["attributes"]}, "scopeLogs": [{"scope": {"name": "s"}, "logRecords": [RECORD]}]}]
}
LOGS_BINARY = json_format.ParseDict(LOGS, ExportLogsServiceRequest()).SerializeToString()


def checked(outcome: Outcome, count: int | None = None) -> tuple[list[tuple[bytes, bytes]], list[object]]:
    """What can be compared of an outcome, once it is seen to be well formed."""
    total = len(outcome.messages) + len(outcome.rejected)
    assert count in (None, total), "n events in are n out"
    places = [one.index for one in outcome.rejected]
    assert places == sorted(set(places))
    assert all(0 <= place < total for place in places)
    for _, value in outcome.messages:
        accepted = event.decode_raw(value)
        REGISTRY.schema_ref(accepted.type, accepted.dataschema)
        json.loads(bytes(accepted.data))
    for rejection in outcome.rejected:
        assert dead_letter.decode(dead_letter.encode(rejection.letter)) == rejection.letter
    return list(outcome.messages), [(one.index, msgspec.structs.replace(one.letter, dead_letter_id="")) for one in outcome.rejected]


def result(judge: Callable[[], Outcome]) -> object:
    """An outcome, or what was raised of what is documented."""
    try:
        return checked(judge())
    except (Invalid, TooMany) as refused:
        return type(refused), str(refused)


def both(judge: Callable[..., Outcome], body: bytes, form: Form) -> None:
    """Python and native code say the same."""
    ordinary = result(lambda: judge(body, form, SENDING, None))
    if FAST:
        assert result(lambda: judge(body, form, SENDING, FAST)) == ordinary, "native code says otherwise"


def cloudevents_(body: bytes) -> None:
    both(judge_batch, body, cloudevents.FORM)
    both(judge_one, body, cloudevents.FORM)


def segment_(body: bytes) -> None:
    both(judge_batch, body, SEGMENT)
    for call in (None, *segment.CALLS):
        both(judge_one, body, segment.form("website", REGISTRY, call))
    segment.write_key(body)


def otlp_json(body: bytes) -> None:
    _otlp(body, otlp.JSON)


def otlp_protobuf(body: bytes) -> None:
    _otlp(body, otlp.PROTOBUF)


def _otlp(body: bytes, media_type: str) -> None:
    with contextlib.suppress(Invalid, TooMany):
        sent, texts = otlp_events.read(body, media_type, REGISTRY, LIMITS)
        assert len(texts()) == len(sent)
        checked(accept(sent, texts, SENDING), len(sent))


def inflate_(body: bytes) -> None:
    for encoding in ENCODINGS:
        with contextlib.suppress(TooLong, Corrupt):
            assert len(inflate(body, encoding, MAX_INFLATED)) <= MAX_INFLATED


def write_key(body: bytes) -> None:
    for text in (body.decode("latin-1"), "Basic " + base64.b64encode(body).decode(), "Bearer " + body.decode("latin-1")):
        key = write_key_of(text)
        assert key is None or key


def binary(body: bytes) -> None:
    """Lines `name: value`, and after a blank line the data."""
    head, _, data = body.partition(b"\n\n")
    headers = dict(line.decode("latin-1").split(": ", 1) for line in head.split(b"\n") if b": " in line)
    with contextlib.suppress(Invalid):
        checked(accept(*cloudevents.read_binary(data, headers, LIMITS), SENDING), 1)


def keys(body: bytes) -> None:
    """The check of data against the simplest one that says the same."""
    found: object = None
    try:
        jsontext.check_object(body, LIMITS.depth)
        found = True
    except Invalid as problem:
        found = problem.reason
    assert (found is True) == _fine(body)


def _fine(body: bytes) -> bool:
    def refuse(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs) or not all(part.strip() for key, _ in pairs for part in key.split(".")):
            raise ValueError
        return dict(pairs)

    def number(text: str) -> float:
        value = float(text)
        if value - value != 0:
            raise ValueError
        return value

    def deep(value: object) -> int:
        inner: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return isinstance(value, dict | list) and 1 + max(map(deep, inner), default=0)

    try:
        text = body.decode()
        value = json.loads(text, object_pairs_hook=refuse, parse_constant=number, parse_float=number, parse_int=number)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return False
    return body.startswith(b"{") and deep(value) <= LIMITS.depth


def http2(body: bytes) -> None:
    """What follows on the preface; the first byte says in pieces of which size. Whatever it is, the connection ends with nothing held."""
    wire, size = Wire(), max(1, body[0] if body else 1)
    wire.feed(PREFACE)
    for start in range(1, len(body), size):
        wire.feed(body[start : start + size])
    if not wire.closed:
        wire.close()
    assert (wire.server.admission.bytes, wire.server.calls, wire.connection.streams) == (0, 0, {})


def _seeds() -> Iterator[tuple[str, bytes]]:
    yield "cloudevents", json.dumps([EVENT, EVENT]).encode()
    yield "cloudevents", json.dumps(EVENT, ensure_ascii=False).encode()
    yield "cloudevents", json.dumps([EVENT]).replace("x00", "ud800").encode()
    yield "segment", json.dumps({"batch": [CALL, CALL], "writeKey": "k"}).encode()
    yield "segment", json.dumps(CALL).encode()
    yield "otlp_json", json.dumps(LOGS).encode()
    yield "otlp_json", json.dumps(LOGS).replace('"s"', '"\\ud800"').encode()
    yield "otlp_protobuf", LOGS_BINARY
    yield "binary", b'ce-id: 1\nce-source: s\nce-type: login\nce-subject: %20u\n\n{"a":1}'
    yield "keys", json.dumps(EVENT["data"]).encode()
    yield "keys", rb'{"a":"\ud83d\ude80\\\"","b":{"a\u0061":[1e5,-0.0,{}]}}'
    yield "write_key", b"key:password"
    yield "inflate", brotli.compress(b'{"a":123}')
    for packed in ("H4sIAAAAAAACA6tWKkksLlayUsoqzs9Tqo0FAKqzRnERAAAA", "eJyrVspMUbJSMlSqBQARdQLJ", "KLUv/SAJSQAAeyJhIjoxMjN9"):
        yield "inflate", base64.b64decode(packed)
    encoder = hpack.Encoder()
    for stream, path in ((1, "/t/Stream"), (3, "/t/Echo")):
        head = b"\0\0%c\x01\x04\0\0\0%c"
        block = encoder.encode(fields(path, ("grpc-encoding", "gzip"), ("grpc-timeout", "5S")))
        yield "http2", b"\xff" + head % (len(block), stream) + block + split(message(b"x") * 3, stream, end=True)
        yield "http2", b"\x05" + head % (len(block), stream) + block + split(message(b"x" * 50)[:-1], stream, end=False)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "cloudevents": cloudevents_, "segment": segment_, "otlp_json": otlp_json, "otlp_protobuf": otlp_protobuf, "inflate": inflate_,
    "write_key": write_key, "binary": binary, "keys": keys, "http2": http2,
}  # fmt: skip


def main() -> None:
    """Fuzz one target. Its corpus is kept in `.runtime/fuzz/TARGET`, and so is an input that fails."""
    name = sys.argv[1]
    folder = ROOT / ".runtime" / "fuzz" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, (of, seed) in enumerate(_seeds()):
        if of == name:
            (folder / f"seed-{number}").write_bytes(seed)
    options = [
        "-max_len=4000",
        "-timeout=10",
        f"-dict={Path(__file__).with_name('json.dict')}",
        f"-artifact_prefix={folder}-",
        *sys.argv[2:],
    ]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda data: TARGETS[name](bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
