"""What the collector refused, by whatever way it came in, can be judged again: the event is what it would have been at first."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import msgspec
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from cli.dlq.judge import Bound, Judge
from collector import otlp
from collector.accept import Limits
from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import dead_letter, event, keys, replays
from headrace.dead_letter import DeadLetter
from headrace.protobuf import Messages
from headrace.registry import Registry
from tests.collector_mock_kafka import mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT

KEY_ID = keys.digest(KEY).hex()[:8]
DATA = {"button_id": "buy", "extra": "x" * 1500}  # more than the collector here takes
SENT: dict[str, Any] = {"id": "one", "source": "shop", "type": "button_click", "subject": "c1", "time": "2026-01-31T12:00:00Z"}
CALL = {"messageId": "one", "event": "button_click", "userId": "c1", "timestamp": "2026-01-31T12:00:00Z", "properties": DATA}


def pairs(said: dict[str, str]) -> list[dict[str, Any]]:
    """As OTLP/JSON writes attributes."""
    return [{"key": name, "value": {"stringValue": value}} for name, value in said.items()]


LOG = {
    "timeUnixNano": "1769860800000000000",
    "eventName": "button_click",
    "body": {"kvlistValue": {"values": pairs(DATA)}},
    "attributes": pairs({"log.record.uid": "one", "user.id": "c1"}),
}
EXPORT = {"resourceLogs": [{"resource": {"attributes": pairs({"service.name": "shop"})}, "scopeLogs": [{"logRecords": [LOG]}]}]}
ATTRIBUTES = {f"ce-{name}": value for name, value in SENT.items()}
ATTRIBUTES |= {"ce-dataschema": "button_click/1-0-0", "ce-subject": "gr%C3%B6%20%26x"}


def registry() -> tuple[Registry, Messages]:
    plan = Registry.load(ROOT / "schemas")
    return plan, Messages.load(ROOT / "schemas", plan.schemas)


def judge(**changes: Any) -> Judge:
    return Judge(*registry(), Limits(), {KEY_ID: Bound("shop")} | changes.pop("keys", {}), **changes)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    folder = tmp_path_factory.mktemp("ways")
    settings = {"COLLECTOR_MAX_EVENT_BYTES": "1024", "COLLECTOR_SOURCE": "shop"}
    with mock_kafka(partitions=1) as broker, collector(broker.address, folder, **settings) as running:
        running.wait()
        yield running


def only_letter(server: CollectorProcess, before: int) -> DeadLetter:
    (value,) = [value for _, value in server.written("dead-letter.collector")][before:]
    return dead_letter.decode(value)


def post(path: str, body: Any, **headers: str) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def send(server: CollectorProcess) -> None:
        answer = httpx.post(server.rest + path, content=content, headers={"content-type": "application/json"} | headers, auth=(KEY, ""))
        assert answer.status_code in (200, 400), answer.text

    return send


def over_grpc(server: CollectorProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        request = pb.PublishRequest(events=[pb.Event(**SENT, json=json.dumps(DATA).encode())])
        reply = CollectorStub(channel).Publish(request, metadata=(("authorization", f"Bearer {KEY}"),))
        assert [one.reason for one in reply.rejected] == ["too_large"]


def in_protobuf() -> bytes:
    from google.protobuf import json_format

    return json_format.ParseDict(EXPORT, ExportLogsServiceRequest()).SerializeToString()


WAYS = {
    "one CloudEvent": (post("/v1/events", SENT | {"data": DATA}), "/v1/events", "cloudevents"),
    "CloudEvents": (post("/v1/events", [SENT | {"data": DATA}]), "/v1/events", "cloudevents"),
    "binary": (post("/v1/events", DATA, **ATTRIBUTES), "/v1/events?", "cloudevents"),
    "a call": (post("/v1/track", CALL), "/v1/track", "segment"),
    "calls": (post("/v1/batch", {"batch": [CALL | {"type": "track"}]}), "/v1/batch", "segment"),
    "logs": (post("/v1/logs", EXPORT), "/v1/logs", "otlp"),
    "logs in protobuf": (post("/v1/logs", in_protobuf(), **{"content-type": otlp.PROTOBUF}), "/v1/logs", "otlp"),
    "gRPC": (over_grpc, "grpc", "grpc"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_came_in_by_any_way_is_accepted_once_the_reason_is_gone(server: CollectorProcess, way: str) -> None:
    send, came_by, protocol = WAYS[way]
    before = len(server.written("dead-letter.collector"))
    send(server)
    letter = only_letter(server, before)
    assert (letter.reason, letter.key_id) == ("too_large", KEY_ID)
    assert (letter.origin_topic or "").startswith(came_by)
    assert letter.origin_partition is None

    replay = judge()(letter)
    assert replay.topic == "events.raw"
    ((key, value),) = replay.messages
    found = event.decode_raw(value)
    assert key == event.identity_key("shop", "one")
    assert (found.id, found.source, found.type, found.dataschema) == ("one", "shop", "button_click", "button_click/1-0-0")
    assert found.subject == ("grö &x" if way == "binary" else "c1")
    assert found.time.removesuffix("Z") == "2026-01-31T12:00:00"
    assert json.loads(bytes(found.data)) == DATA
    assert found.received_at == letter.received_at, "when it came, not when it was replayed"
    assert (found.receipt.protocol, found.receipt.key_id) == (protocol, KEY_ID)
    assert replays.origin_of(found.receipt.collector_id) == (letter.dead_letter_id, 1)


def test_a_body_that_could_not_be_read_is_as_unreadable_as_before(server: CollectorProcess) -> None:
    before = len(server.written("dead-letter.collector"))
    post("/v1/batch", b'{"batch":[')(server)
    with pytest.raises(dead_letter.Invalid) as refused:
        judge()(only_letter(server, before))
    assert refused.value.reason == "unparseable"


def test_a_key_is_bound_to_what_it_was(server: CollectorProcess) -> None:
    before = len(server.written("dead-letter.collector"))
    post("/v1/events", SENT | {"data": DATA})(server)
    letter = only_letter(server, before)
    for keys_now, reason in (
        ({KEY_ID: Bound("other", "other")}, "not_allowed"),
        ({KEY_ID: Bound("shop", "shop", frozenset({"login"}))}, "not_allowed"),
    ):
        with pytest.raises(dead_letter.Invalid) as refused:
            judge(keys=keys_now)(letter)
        assert refused.value.reason == reason
    with pytest.raises(dead_letter.Invalid, match="there is no write key gone"):
        judge()(msgspec.structs.replace(letter, key_id="gone"))


def test_what_a_binary_request_said_wrongly_is_still_wrong(server: CollectorProcess) -> None:
    before = len(server.written("dead-letter.collector"))
    small = {"button_id": "buy"}
    post("/v1/events", small, **(ATTRIBUTES | {"ce-subject": "s" * 600}))(server)
    post("/v1/events", small, **(ATTRIBUTES | {"ce-dataschema": "button_click/9-0-0"}))(server)
    post("/v1/events", small, **(ATTRIBUTES | {"ce-specversion": "2.0"}))(server)
    letters = [dead_letter.decode(value) for _, value in server.written("dead-letter.collector")][before:]
    assert len(letters) == 3
    for letter in letters:
        with pytest.raises(dead_letter.Invalid) as refused:
            judge()(letter)
        assert refused.value.reason == letter.reason
