"""The collector over gRPC: tools that know its address only, messages of the schemas' .proto files, streams, limits, outages."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace.protobuf import Messages
from headrace.registry import Registry
from tests.collector_found import data, dead, raw, raws
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.collector_real_kafka import ROOT

METADATA = (("authorization", f"Bearer {KEY}"),)
PURCHASE, PAGE_VIEW = "headrace.schemas.purchase.v1_0_0.Purchase", "headrace.schemas.page_view.v1_0_0.PageView"
MESSAGES = Messages.load(ROOT / "schemas", Registry.load(ROOT / "schemas").schemas)


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
def channel(server: CollectorProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc) as one:
        yield one


@pytest.fixture
def id() -> str:
    return str(uuid.uuid4())


def packed(name: str, **members: Any) -> any_pb2.Any:
    message = message_factory.GetMessageClass(MESSAGES.pool.FindMessageTypeByName(name))()
    of = any_pb2.Any()
    of.Pack(json_format.ParseDict(members, message))
    return of


def event(id: str, **changes: Any) -> pb.Event:
    given = {"id": id, "source": "shop", "type": "purchase", "subject": "c1", "json": b'{"quantity":1,"amount_usd":9.5}'} | changes
    return pb.Event(**{name: value for name, value in given.items() if value is not None})


def refused(reply: pb.PublishReply) -> list[tuple[int, str]]:
    return [(one.index, one.reason) for one in reply.rejected]


def test_a_tool_that_knows_the_address_only(server: CollectorProcess, channel: grpc.Channel, id: str) -> None:
    """As grpcurl does it: services, then methods, then their messages, by reflection; the request is written in JSON."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    (service,) = [name for name in database.get_services() if "reflection" not in name and "health" not in name]
    method = pool.FindServiceByName(service).methods_by_name["Publish"]
    ask, reply = message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)
    written = {
        "events": [
            {"id": f"json-{id}", "source": "tool", "type": "page_view", "json": "eyJ1cmwiOiIvIn0="},
            {"id": f"any-{id}", "source": "tool", "type": "purchase", "subject": "c1",
             "message": {"@type": f"type.googleapis.com/{PURCHASE}", "quantity": 2, "amount_usd": 0}},
            {"id": f"bad-{id}", "source": "tool", "type": "nothing"},
        ]
    }  # fmt: skip
    request = json_format.Parse(json.dumps(written), ask(), descriptor_pool=pool)
    call = channel.unary_unary(f"/{service}/{method.name}", ask.SerializeToString, reply.FromString)
    answer = json_format.MessageToDict(call(request, metadata=METADATA))
    assert answer["accepted"] == 2
    assert [(one["index"], one["id"], one["reason"]) for one in answer["rejected"]] == [(2, f"bad-{id}", "unknown_type")]
    assert data(raw(server, f"json-{id}")) == {"url": "/"}
    assert data(raw(server, f"any-{id}")) == {"quantity": 2, "amount_usd": 0}
    assert raw(server, f"any-{id}").dataschema == "purchase/1-0-0"


def test_data_as_a_message(server: CollectorProcess, channel: grpc.Channel, id: str) -> None:
    products = [{"product_id": "p", "quantity": 1, "price_usd": 9.5}]
    bought = packed(PURCHASE, quantity=1, amount_usd=9.5, order_id="größe", products=products)
    other = any_pb2.Any(type_url="type.googleapis.com/google.protobuf.Timestamp", value=b"")
    newer = any_pb2.Any(type_url=f"type.googleapis.com/{PURCHASE}", value=bought.value + b"\x98\x06\x01")
    broken = any_pb2.Any(type_url=f"type.googleapis.com/{PURCHASE}", value=b"\x08")
    events = [
        event(f"good-{id}", json=None, message=bought),
        event(f"said-{id}", json=None, message=bought, dataschema="purchase/1-0-0", type="Order Completed"),
        event(f"type-{id}", json=None, message=packed(PAGE_VIEW, url="/")),
        event(f"schema-{id}", json=None, message=bought, dataschema="purchase/2-0-0"),
        event(f"other-{id}", json=None, message=other),
        event(f"newer-{id}", json=None, message=newer),
        event(f"broken-{id}", json=None, message=broken),
        event(f"none-{id}", json=None),
        event(f"large-{id}", json=None, message=packed(PURCHASE, order_id="\x01" * 10_000)),
    ]
    reply = CollectorStub(channel).Publish(pb.PublishRequest(events=events), metadata=METADATA)
    assert reply.accepted == 2
    assert refused(reply) == [
        (2, "unknown_schema"), (3, "invalid_attribute"), (4, "unknown_schema"), (5, "malformed"), (6, "unparseable"),
        (7, "missing_attribute"), (8, "too_large"),
    ]  # fmt: skip
    good = raw(server, f"good-{id}")
    assert data(good) == {"quantity": 1, "amount_usd": 9.5, "order_id": "größe", "products": products}
    assert (good.dataschema, good.receipt.protocol, raw(server, f"said-{id}").type) == ("purchase/1-0-0", "grpc", "purchase")
    for index, name in enumerate(["type", "schema", "other", "newer", "broken", "none", "large"], start=2):
        letter = dead(server, lambda one, name=name: one.id == f"{name}-{id}")  # type: ignore[misc]
        assert pb.Event.FromString(letter.payload_bytes()) == events[index]


def test_a_stream_goes_on_after_bad_events_and_answers_in_order(server: CollectorProcess, channel: grpc.Channel, id: str) -> None:
    requests = [pb.PublishRequest(events=[event(f"{n}-{id}"), event(f"bad-{n}-{id}", type=f"no{n}")]) for n in range(20)]
    replies = list(CollectorStub(channel).PublishStream(iter(requests), metadata=METADATA))
    assert [[one.id for one in reply.rejected] for reply in replies] == [[f"bad-{n}-{id}"] for n in range(20)]
    assert [reply.accepted for reply in replies] == [1] * 20
    assert len(raws(server, lambda of: of.id.endswith(id))) == 20


def test_a_stream_holds_the_sender_back_while_kafka_is_slow(tmp_path: Any) -> None:
    data, size, total = b'{"quantity":1,"amount_usd":1,"x":"%b"}' % (b"x" * 30_000), 13, 100
    pulled = 0

    def requests() -> Iterator[pb.PublishRequest]:
        nonlocal pulled
        for number in range(total):
            pulled += 1
            yield pb.PublishRequest(events=[event(f"{number}-{n}", json=data) for n in range(size)])

    with mock_kafka() as broker, collector(broker.address, tmp_path) as server, grpc.insecure_channel(server.grpc) as channel:
        server.wait()
        broker.delay(100)
        ahead = []
        for answered, reply in enumerate(CollectorStub(channel).PublishStream(requests(), metadata=METADATA), start=1):
            assert reply.accepted == size
            ahead.append(pulled - answered)
        assert len(ahead) == total
        assert max(ahead) <= 50  # of 40 MB at most half: what HTTP/2's window and the buffers of both sides hold
        assert len(server.written("events.raw")) == total * size


COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_request_may_have_500_kb(server: CollectorProcess, channel: grpc.Channel, id: str, compression: grpc.Compression) -> None:
    stub = CollectorStub(channel)
    full = pb.PublishRequest(events=[event(f"{n}-{id}", json=b'{"x":"%b"}' % (b"x" * 30_000)) for n in range(16)])
    assert full.ByteSize() < 500_000
    assert stub.Publish(full, metadata=METADATA, compression=compression).accepted == 16
    full.events.add().CopyFrom(event(id, json=b'{"x":"%b"}' % (b"x" * 30_000)))
    assert full.ByteSize() > 500_000
    for call in (lambda: stub.Publish(full, metadata=METADATA, compression=compression),
                 lambda: list(stub.PublishStream(iter([full]), metadata=METADATA, compression=compression))):  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raws(server, lambda of: of.id == id) == []


def most_memory(server: CollectorProcess) -> int:
    """The most that the collector's process ever had, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("compression", COMPRESSIONS[1:])
def test_a_bomb_costs_no_memory(server: CollectorProcess, channel: grpc.Channel, compression: grpc.Compression) -> None:
    before = most_memory(server)
    call: Any = channel.unary_unary("/headrace.collector.v1.Collector/Publish", bytes, pb.PublishReply.FromString)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as caught:
            call(200_000_000, metadata=METADATA, compression=compression)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert most_memory(server) - before < 30_000_000
    assert CollectorStub(channel).Publish(pb.PublishRequest(), metadata=METADATA).accepted == 0


def test_while_kafka_is_away(tmp_path: Any) -> None:
    with mock_kafka() as broker, collector(broker.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="1") as server:
        server.wait()
        with grpc.insecure_channel(server.grpc) as channel:
            stub, health = CollectorStub(channel), health_pb2_grpc.HealthStub(channel)

            def requests() -> Iterator[pb.PublishRequest]:
                yield pb.PublishRequest(events=[event("before")])
                broker.stop()
                yield pb.PublishRequest(events=[event("during")])

            replies, got = stub.PublishStream(requests(), metadata=METADATA), list[int]()
            with pytest.raises(grpc.RpcError) as caught:
                got.extend(reply.accepted for reply in replies)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "send it again" in str(caught.value.details())
            states = health.Watch(health_pb2.HealthCheckRequest(service="headrace.collector.v1.Collector"))  # type: ignore[attr-defined]
            assert next(one.status for one in states if one.status != 1) == health_pb2.HealthCheckResponse.NOT_SERVING
            broker.start()
            assert next(one.status for one in states if one.status != 2) == health_pb2.HealthCheckResponse.SERVING
            assert stub.Publish(pb.PublishRequest(events=[event("after")]), metadata=METADATA).accepted == 1
            states.cancel()
        assert {"before", "after"} <= {of.id for of in raws(server, lambda _: True)}


def test_a_proto_that_cannot_be_used_is_one_clear_line(tmp_path: Any) -> None:
    schemas = tmp_path / "schemas"
    (schemas / "visit").mkdir(parents=True)
    (schemas / "tracking_plan.yaml").write_text("events:\n  visit: {version: 1-0-0, owner: web, purpose: Visits.}\n")
    (schemas / "visit" / "1-0-0.json").write_text('{"type": "object", "properties": {"url": {"type": "string"}}}')
    (schemas / "visit" / "1-0-0.proto").write_text(
        'syntax = "proto3"; package headrace.schemas.visit.v1_0_0; message Visit { string url = 1; }'
    )
    with collector("127.0.0.1:1", tmp_path, SCHEMAS_DIR=str(schemas)) as server:
        assert server.process.wait(30) != 0
        assert "visit/1-0-0.proto: Visit.url: write `optional`" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
