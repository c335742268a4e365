"""The collector as its clients see it: a process of our own, on librdkafka's in-process broker."""

import gzip
import json
import re
import socket
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import dead_letter, event
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector

RAW, DEAD = event.RAW_TOPIC, "dead-letter.collector"


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as running:
        yield running


@pytest.fixture(scope="module")
def server(broker: MockKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with collector(broker.address, tmp_path_factory.mktemp("collector")) as running:
        running.wait()
        yield running


@pytest.fixture
def client(server: CollectorProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.rest, auth=(KEY, ""), timeout=30) as one:
        yield one


@pytest.fixture
def id() -> str:
    return str(uuid.uuid4())


def purchase(id: str, **changes: Any) -> dict[str, Any]:
    base = {"specversion": "1.0", "id": id, "source": "shop", "type": "purchase", "subject": "c1", "time": "2026-01-31T12:00:00Z"}
    return base | {"data": {"quantity": 1, "amount_usd": 9.5}} | changes


def raw(server: CollectorProcess, id: str) -> event.RawEvent:
    (found,) = [value for key, value in server.written(RAW) if key.endswith(b"\x1f" + id.encode())]
    return event.decode_raw(found)


def dead(server: CollectorProcess, holds: Callable[[dead_letter.DeadLetter], bool]) -> dead_letter.DeadLetter:
    letters = [dead_letter.decode(value) for _, value in server.written(DEAD)]
    (found,) = [letter for letter in letters if holds(letter)]
    return found


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json"), answer.text
    body = answer.json()
    assert set(body) == {"code", "message"}
    assert body["code"] == code
    return str(body["message"])


def test_an_event_is_in_kafka_once_it_is_answered(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    answer = client.post("/v1/events", json=purchase(id), headers={"user-agent": "tests/1"})
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    found = raw(server, id)
    assert (found.source, found.type, found.subject, found.dataschema) == ("shop", "purchase", "c1", "purchase/1-0-0")
    assert (found.receipt.protocol, found.receipt.user_agent, found.receipt.collector_id) == ("cloudevents", "tests/1", "collector")
    assert found.receipt.client is not None
    assert "127.0.0.1" not in found.receipt.client


def test_a_bad_event_of_a_batch_is_named_and_kept(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    bad = purchase(f"bad-{id}", type="unheard_of")
    answer = client.post("/v1/events", json=[purchase(f"a-{id}"), bad, purchase(f"b-{id}")])
    assert answer.status_code == 200
    assert answer.json()["accepted"] == 2
    (rejected,) = answer.json()["rejected"]
    assert (rejected["index"], rejected["id"], rejected["reason"]) == (1, f"bad-{id}", "unknown_type")
    assert "purchase" in rejected["detail"]
    letter = dead(server, lambda one: one.id == f"bad-{id}")
    assert json.loads(letter.payload_bytes()) == bad
    assert (letter.service, letter.reason, letter.source, letter.type) == ("collector", "unknown_type", "shop", "unheard_of")


def test_a_body_that_cannot_be_read_is_kept(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    refused(client.post("/v1/events", content=f"[{id}".encode(), headers={"content-type": "application/json"}), 400, "unparseable")
    assert dead(server, lambda one: id in one.payload).reason == "unparseable"
    refused(client.post("/v1/batch", json={"bunch": id}), 400, "malformed")
    assert dead(server, lambda one: id in one.payload and one.reason == "malformed").payload_bytes() == f'{{"bunch":"{id}"}}'.encode()
    cut = gzip.compress(id.encode())[:-4]
    refused(client.post("/v1/batch", content=cut, headers={"content-encoding": "gzip"}), 400, "unparseable")
    assert dead(server, lambda one: one.payload_bytes() == cut)


@pytest.mark.parametrize("auth", [None, ("wrong-key", ""), ("", KEY)])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/batch", "/v1/track"])
def test_who_is_unknown_gets_nothing_in(server: CollectorProcess, auth: tuple[str, str] | None, path: str, id: str) -> None:
    answer = httpx.post(server.rest + path, json=purchase(id), auth=auth)
    refused(answer, 401, "unauthorized")
    assert "Basic" in answer.headers["www-authenticate"]
    assert all(id.encode() not in value for topic in (RAW, DEAD) for _, value in server.written(topic))


def test_where_the_key_may_stand(server: CollectorProcess, id: str) -> None:
    call = {"messageId": id, "event": "login", "userId": "u"}
    post = httpx.post
    assert post(f"{server.rest}/v1/events", json=purchase(id), headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    assert post(f"{server.rest}/v1/track?writeKey={KEY}", json=call).status_code == 200
    beacon = json.dumps({"writeKey": KEY, "batch": [call | {"type": "track"}]})
    assert post(f"{server.rest}/v1/batch", content=beacon, headers={"content-type": "text/plain;charset=UTF-8"}).status_code == 200
    packed = gzip.compress(beacon.encode())
    assert post(f"{server.rest}/v1/batch", content=packed, headers={"content-encoding": "gzip"}).status_code == 200
    refused(post(f"{server.rest}/v1/track?writeKey=wrong", json=call), 401, "unauthorized")
    refused(post(f"{server.rest}/v1/batch", json={"writeKey": "wrong", "batch": []}), 401, "unauthorized")
    refused(post(f"{server.rest}/v1/batch", json={"writeKey": KEY, "batch": []}, auth=("wrong", "")), 401, "unauthorized")


def test_requests_outside_the_rules(client: httpx.Client) -> None:
    refused(client.post("/v1/nothing"), 404, "not_found")
    answer = client.get("/v1/events")
    assert "POST" in refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST, OPTIONS"
    refused(client.post("/readyz"), 405, "method_not_allowed")
    assert "application/json" in refused(client.post("/v1/batch", data={"a": "b"}), 415, "unsupported_media_type")
    latin = {"content-type": "application/json; charset=iso-8859-1"}
    refused(client.post("/v1/events", content=b"{}", headers=latin), 415, "unsupported_media_type")
    refused(client.post("/v1/events", content=b"{}", headers={"content-encoding": "compress"}), 415, "unsupported_encoding")
    refused(client.post("/v1/events", content=b"", headers={"content-type": "application/json"}), 400, "unparseable")


def test_what_is_not_http_is_answered_in_json_too(server: CollectorProcess) -> None:
    host, port = server.rest.removeprefix("http://").split(":")
    for sent in (b"nonsense\r\n\r\n", b"POST /v1/events HTTP/1.1\r\nContent-Length: many\r\n\r\n"):
        with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile("rb") as answer:
            connection.sendall(sent)
            head, body = answer.read().split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(body)["code"] == "bad_request"


def test_limits(client: httpx.Client, id: str) -> None:
    json_ = {"content-type": "application/json"}
    refused(client.post("/v1/events", content=b" " * 500_001, headers=json_), 413, "too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(60):
            yield b" " * 10_000

    refused(client.post("/v1/events", content=chunks(), headers=json_), 413, "too_large")
    bomb = gzip.compress(bytes(100_000_000))
    assert len(bomb) < 500_000
    refused(client.post("/v1/batch", content=bomb, headers=json_ | {"content-encoding": "gzip"}), 413, "too_large")
    refused(client.post("/v1/events", json=[{}] * 501), 413, "too_many_events")
    answer = client.post("/v1/events", json=[purchase(id), purchase("large", data={"a": "x" * 33_000})])
    assert (answer.json()["accepted"], answer.json()["rejected"][0]["reason"]) == (1, "too_large")
    assert client.post("/v1/events", json=purchase("fits", data={"a": "x" * 31_000})).json()["accepted"] == 1
    assert client.post("/v1/events", json=[]).json() == {"accepted": 0, "rejected": []}


def test_a_page_of_the_shop_may_send_and_others_may_not(client: httpx.Client) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    answer = client.options("/v1/batch", headers={"origin": "http://shop.example"} | asked)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (204, "http://shop.example")
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert {"authorization", "content-type"} <= {name.strip() for name in answer.headers["access-control-allow-headers"].split(",")}
    answer = client.post("/v1/batch", json={"batch": []}, headers={"origin": "http://shop.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (
        200, "http://shop.example", "origin")  # fmt: skip
    assert "access-control-allow-origin" in client.post("/v1/x", headers={"origin": "http://shop.example"}).headers
    assert "access-control-allow-origin" not in client.options("/v1/batch", headers={"origin": "http://evil.example"} | asked).headers


def test_operation(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.post("/v1/events", json={"id": "x"})
    metrics = client.get("/metrics").text
    assert 'headrace_collector_events_rejected_total{protocol="cloudevents",reason="missing_attribute"}' in metrics
    assert "headrace_collector_request_seconds_bucket" in metrics
    assert client.get("/openapi.json").json()["openapi"] == "3.1.0"
    assert "/v1/batch" in client.get("/docs").text
    assert client.head("/docs").status_code == 200


# ---- gRPC


@pytest.fixture
def channel(server: CollectorProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as one:
        yield one


METADATA = (("authorization", f"Bearer {KEY}"),)


def message(id: str, **changes: Any) -> pb.Event:
    fields: dict[str, Any] = {"id": id, "source": "shop", "type": "purchase", "subject": "c1", "time": "2026-01-31T12:00:00Z"}
    return pb.Event(**(fields | {"json": b'{"quantity":1,"amount_usd":9.5}'} | changes))


def test_grpc_publish(server: CollectorProcess, channel: grpc.Channel, id: str) -> None:
    events = [message(id), message(f"bad-{id}", type="nothing"), message(f"no-data-{id}", json=b'{"x"')]
    reply = CollectorStub(channel).Publish(pb.PublishRequest(events=events), metadata=METADATA)
    assert reply.accepted == 1
    assert [(one.index, one.id, one.reason) for one in reply.rejected] == [
        (1, f"bad-{id}", "unknown_type"),
        (2, f"no-data-{id}", "unparseable"),
    ]
    found = raw(server, id)
    assert (found.time, bytes(found.data), found.receipt.protocol) == (
        "2026-01-31T12:00:00Z", b'{"quantity":1,"amount_usd":9.5}', "grpc")  # fmt: skip
    assert found.receipt.client is not None
    assert pb.Event.FromString(dead(server, lambda one: one.id == f"bad-{id}").payload_bytes()) == events[1]


def test_grpc_stream_acknowledges_in_order(server: CollectorProcess, channel: grpc.Channel, id: str) -> None:
    requests = [pb.PublishRequest(events=[message(f"{n}-{m}-{id}") for m in range(n)]) for n in range(6)]
    replies = CollectorStub(channel).PublishStream(iter(requests), metadata=METADATA)
    assert [reply.accepted for reply in replies] == list(range(6))
    assert raw(server, f"5-4-{id}").subject == "c1"


def test_grpc_errors(channel: grpc.Channel) -> None:
    stub = CollectorStub(channel)
    too_many = pb.PublishRequest(events=[pb.Event()] * 501)
    for request, metadata, code in [
        (pb.PublishRequest(), (), grpc.StatusCode.UNAUTHENTICATED),
        (pb.PublishRequest(), (("authorization", "Bearer wrong"),), grpc.StatusCode.UNAUTHENTICATED),
        (too_many, METADATA, grpc.StatusCode.INVALID_ARGUMENT),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            stub.Publish(request, metadata=metadata)
        assert caught.value.code() == code
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.PublishStream(iter([pb.PublishRequest()])))
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    large = pb.PublishRequest(events=[message("x", json=b'{"a":"' + b"x" * 33_000 + b'"}')])
    assert [one.reason for one in stub.Publish(large, metadata=METADATA).rejected] == ["too_large"]


def test_grpc_health_and_reflection(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", "headrace.collector.v1.Collector"):
        request = health_pb2.HealthCheckRequest(service=service)
        status = health.Check(request).status  # type: ignore[attr-defined]  # the stubs lack it
        assert status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "headrace.collector.v1.Collector" in database.get_services()
    described = database.FindFileContainingSymbol("headrace.collector.v1.Collector").service[0]
    assert [method.name for method in described.method] == ["Publish", "PublishStream"]


# ---- Kafka away, and the end


def test_with_kafka_stopped_503_and_nothing_is_lost(tmp_path: Any) -> None:
    with mock_kafka() as broker, collector(broker.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="1") as server:
        server.wait()
        client = httpx.Client(base_url=server.rest, auth=(KEY, ""), timeout=30)
        assert client.post("/v1/events", json=purchase("before")).status_code == 200
        broker.stop()
        answer = client.post("/v1/events", json=purchase("during"))
        refused(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
            CollectorStub(channel).Publish(pb.PublishRequest(events=[message("g")]), metadata=METADATA)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        while client.get("/readyz").status_code == 200:
            pass
        assert client.get("/healthz").status_code == 200
        refused(client.get("/readyz"), 503, "unavailable")
        broker.start()
        server.wait()
        while client.post("/v1/events", json=purchase("during")).status_code != 200:
            pass
        keys = {key for key, _ in server.written(RAW)}
        assert {b"shop\x1fbefore", b"shop\x1fduring"} <= keys


def test_it_starts_without_kafka_and_says_so(tmp_path: Any) -> None:
    with collector("127.0.0.1:1", tmp_path) as server:
        server.wait("/healthz")
        assert "Kafka" in refused(httpx.get(f"{server.rest}/readyz"), 503, "unavailable")
        refused(httpx.post(f"{server.rest}/v1/events", json=purchase("x"), auth=(KEY, "")), 503, "unavailable")
        assert server.stop() == 0


def test_sigterm_finishes_what_is_in_flight(tmp_path: Any) -> None:
    with mock_kafka() as broker, collector(broker.address, tmp_path) as server, ThreadPoolExecutor(8) as threads:
        server.wait()
        broker.delay(1500)
        client = httpx.Client(base_url=server.rest, auth=(KEY, ""), timeout=60)
        bodies = [json.dumps([purchase(f"{number}-{n}") for n in range(10)]) for number in range(8)]

        def send(body: str) -> int:
            return client.post("/v1/events", content=body, headers={"content-type": "application/json"}).status_code

        sent = [threads.submit(send, body) for body in bodies]
        # Only what has arrived is in flight.
        while not any(future.done() for future in sent):
            told = re.search(r"^headrace_collector_in_flight_bytes(?:{[^}]*})? (\S+)$", client.get("/metrics").text, re.MULTILINE)
            if told and float(told[1]) >= sum(map(len, bodies)):
                break
        assert server.stop() == 0
        assert [future.result() for future in sent] == [200] * 8
        broker.delay(0)
        assert len(server.written(RAW)) == 80
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"COLLECTOR_REST_PROT": "1"}, "COLLECTOR_REST_PROT: no such setting"),
        ({"COLLECTOR_REST_PORT": "many"}, "COLLECTOR_REST_PORT"),
        ({"SCHEMAS_DIR": "/nowhere"}, "tracking plan"),
        ({"HEADRACE_WRITE_KEY": ""}, "HEADRACE_WRITE_KEY"),
        ({"BIND_HOST": "192.0.2.1"}, "cannot listen on 192.0.2.1"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: dict[str, str], says: str, tmp_path: Any) -> None:
    with collector("127.0.0.1:1", tmp_path, **settings) as server:
        assert server.process.wait(30) != 0
        assert says in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
