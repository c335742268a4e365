"""The platform's own collector: what it acknowledges over either protocol is in the platform's Kafka."""

import os
import uuid

import grpc
import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from collector.v1 import collector_pb2 as pb
from collector.v1.collector_pb2_grpc import CollectorStub
from headrace import event, kafka

pytestmark = pytest.mark.usefixtures("platform")


def ends() -> tuple[Consumer, list[TopicPartition]]:
    """A consumer, and where events.raw ends now."""
    consumer = Consumer(kafka.consumer_config(os.environ["KAFKA_BOOTSTRAP_SERVERS"], f"test-{uuid.uuid4()}"))
    parts = [TopicPartition(event.RAW_TOPIC, number) for number in consumer.list_topics(timeout=30).topics[event.RAW_TOPIC].partitions]
    for part in parts:
        part.offset = consumer.get_watermark_offsets(part, timeout=30)[1]
    return consumer, parts


def test_both_protocols_write_to_kafka() -> None:
    host, key, id = os.environ["BIND_HOST"], os.environ["HEADRACE_WRITE_KEY"], str(uuid.uuid4())
    consumer, parts = ends()
    consumer.assign(parts)
    rest = f"http://{host}:{os.environ['COLLECTOR_REST_PORT']}"
    assert httpx.get(f"{rest}/readyz").status_code == 200
    one = {"id": f"rest-{id}", "source": "test", "type": "page_view", "data": {"url": "http://x/"}}
    answer = httpx.post(f"{rest}/v1/events", json=one, auth=(key, ""), timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    with grpc.insecure_channel(f"{host}:{os.environ['COLLECTOR_GRPC_PORT']}") as channel:
        message = pb.Event(id=f"grpc-{id}", source="test", type="page_view", json=b'{"url":"http://x/"}')
        metadata = (("authorization", f"Bearer {key}"),)
        reply = CollectorStub(channel).Publish(pb.PublishRequest(events=[message]), metadata=metadata, timeout=30)
    assert (reply.accepted, len(reply.rejected)) == (1, 0)
    wanted = {event.identity_key("test", f"rest-{id}"), event.identity_key("test", f"grpc-{id}")}
    while wanted:
        found = consumer.poll(30)
        assert found is not None, f"not in Kafka: {wanted}"
        wanted.discard(found.key() or b"")
    consumer.close()
