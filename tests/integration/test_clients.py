"""Clients as they are published, unmodified, against the collector's own process."""

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import segment.analytics as segment_sdk
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import http as older_cloudevents
from google.rpc import status_pb2
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from tests.collector_found import data, dead, raw, raws
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector

MOMENT = datetime(2026, 1, 31, 12, tzinfo=UTC)


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


# ---- Segment and RudderStack

Problems = list[tuple[Any, list[dict[str, Any]]]]
MakeSdk = Callable[..., tuple[Any, Problems]]


def segment(host: str, key: str = KEY, **options: Any) -> tuple[Any, Problems]:
    problems: Problems = []
    return segment_sdk.Client(key, host=host, on_error=lambda *problem: problems.append(problem), **options), problems


def rudderstack(host: str, key: str = KEY, **options: Any) -> tuple[Any, Problems]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHON_DOTENV_DISABLED", "1")  # it reads the .env that it finds above its own folder, which may be a platform's
        from rudderstack.analytics.client import Client
    problems: Problems = []
    return Client(key, host=host, on_error=lambda *problem: problems.append(problem), **options), problems


@pytest.fixture(params=[segment, rudderstack], ids=["segment", "rudderstack"])
def make(request: pytest.FixtureRequest) -> MakeSdk:
    sdk: MakeSdk = request.param
    return sdk


def end(sdk: Any) -> None:
    """All is sent, or given up."""
    sdk.flush()
    sdk.join()


@pytest.mark.parametrize("gzip", [True, False], ids=["gzip", "plain"])
def test_every_call_of_a_segment_sdk(server: CollectorProcess, make: MakeSdk, gzip: bool, id: str) -> None:
    sdk, problems = make(server.rest, gzip=gzip)
    user = f"größe-{id}"
    sdk.track(user, "Order Completed", {"quantity": 2, "amount_usd": 20.5}, timestamp=MOMENT, message_id=f"track-{id}")
    sdk.identify(user, {"email": "a@example.org"}, message_id=f"identify-{id}")
    sdk.page(user, "Docs", "Home", {"url": "http://x/"}, message_id=f"page-{id}")
    sdk.screen(user, "App", "Start", message_id=f"screen-{id}")
    sdk.group(user, f"g-{id}", {"name": "Acme"}, message_id=f"group-{id}")
    sdk.alias(f"old-{id}", user, message_id=f"alias-{id}")
    sdk.track(anonymous_id=f"a-{id}", event="Add To Cart", properties={"product_id": "p"}, message_id=f"anonymous-{id}")
    end(sdk)
    assert problems == []
    found = {name: raw(server, f"{name}-{id}") for name in ("track", "identify", "page", "screen", "group", "alias", "anonymous")}
    assert {name: (of.type, data(of)) for name, of in found.items()} == {
        "track": ("purchase", {"quantity": 2, "amount_usd": 20.5}),
        "identify": ("identify", {"email": "a@example.org"}),
        "page": ("page_view", {"name": "Home", "category": "Docs", "url": "http://x/"}),
        "screen": ("screen_view", {"name": "Start", "category": "App"}),
        "group": ("group", {"group_id": f"g-{id}", "name": "Acme"}),
        "alias": ("alias", {"previous_id": f"old-{id}"}),
        "anonymous": ("add_to_cart", {"product_id": "p"}),
    }
    assert found["track"].time == "2026-01-31T12:00:00Z"
    assert found.pop("anonymous").subject == f"a-{id}"
    assert {(of.source, of.subject, of.receipt.protocol) for of in found.values()} == {("website", user, "segment")}
    assert str(found["track"].receipt.user_agent).startswith("analytics-python/")


def test_a_bad_event_costs_an_sdk_nothing_else(server: CollectorProcess, make: MakeSdk, id: str) -> None:
    sdk, problems = make(server.rest, gzip=True)
    sdk.track("u", "login", {"method": "sso"}, message_id=f"good-{id}")
    sdk.track("u", "No Such Thing", {"a": 1}, message_id=f"bad-{id}")
    sdk.track("u", "login", {"method": "sso"}, message_id=f"last-{id}")
    end(sdk)
    assert problems == []
    assert [raw(server, f"{name}-{id}").type for name in ("good", "last")] == ["login", "login"]
    letter = dead(server, lambda one: one.id == f"bad-{id}")
    assert (letter.reason, letter.type, json.loads(letter.payload)["properties"]) == ("unknown_type", "No Such Thing", {"a": 1})


def test_an_event_that_is_too_large_costs_the_rudderstack_sdk_nothing_else(server: CollectorProcess, id: str) -> None:
    """It lets events of 4 MB out; Segment's keeps to 32 KB by itself."""
    sdk, problems = rudderstack(server.rest)
    sdk.track("u", "login", {"method": "sso"}, message_id=f"good-{id}")
    sdk.track("u", "login", {"method": "x" * 40_000}, message_id=f"large-{id}")
    end(sdk)
    assert problems == []
    assert raw(server, f"good-{id}").type == "login"
    assert dead(server, lambda one: one.id == f"large-{id}").reason == "too_large"


def test_an_sdk_is_told_what_was_wrong_and_does_not_repeat_it(server: CollectorProcess, make: MakeSdk, id: str) -> None:
    sdk, problems = make(server.rest, key="wrong-key", gzip=True)
    sdk.track("u", "login", message_id=id)
    end(sdk)
    ((error, batch),) = problems
    assert (error.status, error.code) == (401, "unauthorized")
    assert "write key" in error.message
    assert [one["messageId"] for one in batch] == [id]
    assert raws(server, lambda of: of.id == id) == []


def test_an_sdk_repeats_what_kafka_could_not_take(make: MakeSdk, tmp_path: Any) -> None:
    with mock_kafka() as broker, collector(broker.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="1") as server:
        server.wait()
        broker.stop()
        sdk, problems = make(server.rest, gzip=True)
        for number in range(3):
            sdk.track("u", "login", message_id=f"m{number}")
        refused = 'headrace_collector_requests_total{code="503",protocol="rest"}'
        while refused not in httpx.get(f"{server.rest}/metrics", timeout=30).text:
            pass
        broker.start()
        end(sdk)
        if make is segment:  # it hands the batch back where it is told to wait, and goes on by itself; flush does not wait for that
            while {of.id for of in raws(server, lambda _: True)} != {"m0", "m1", "m2"}:
                pass
        assert problems == []
        assert {of.id for of in raws(server, lambda _: True)} == {"m0", "m1", "m2"}


# ---- CloudEvents


def sdk_event(id: str, **attributes: Any) -> CloudEvent:
    given = {
        "specversion": "1.0", "id": id, "source": "https://shop.example/größe", "type": "purchase", "subject": "größe 1", "time": MOMENT,
        "datacontenttype": "application/json", "traceparent": "00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01",
    }  # fmt: skip
    return CloudEvent(
        {name: value for name, value in (given | attributes).items() if value is not None}, {"quantity": 1, "amount_usd": 9.5}
    )


def assert_purchase(server: CollectorProcess, id: str) -> None:
    found = raw(server, id)
    assert (found.source, found.type, found.subject) == ("https://shop.example/größe", "purchase", "größe 1")
    assert (found.time, data(found)) == ("2026-01-31T12:00:00Z", {"quantity": 1, "amount_usd": 9.5})
    assert found.receipt.protocol == "cloudevents"


@pytest.mark.parametrize("to_http", [to_structured_event, to_binary_event])
@pytest.mark.parametrize("content_type", ["application/json", None])
def test_the_cloudevents_sdk(server: CollectorProcess, client: httpx.Client, id: str, to_http: Any, content_type: str | None) -> None:
    message = to_http(sdk_event(id, datacontenttype=content_type))
    answer = client.post("/v1/events", content=message.body, headers=dict(message.headers))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    assert_purchase(server, id)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("to_http", [older_cloudevents.to_structured, older_cloudevents.to_binary])
def test_the_cloudevents_sdk_by_its_older_interface(server: CollectorProcess, client: httpx.Client, id: str, to_http: Any) -> None:
    attributes = {"id": id, "source": "https://shop.example/", "type": "purchase", "subject": "c1", "time": MOMENT.isoformat()}
    headers, body = to_http(older_cloudevents.CloudEvent(attributes, {"quantity": 1, "amount_usd": 9.5}))
    answer = client.post("/v1/events", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"accepted": 1, "rejected": []})
    found = raw(server, id)
    assert (found.source, found.subject, found.time) == ("https://shop.example/", "c1", "2026-01-31T12:00:00Z")
    assert data(found) == {"quantity": 1, "amount_usd": 9.5}


def test_a_batch_of_cloudevents(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    """The SDK has no batches: a batch is a JSON array of what it makes."""
    bad = sdk_event(f"bad-{id}", type="no.such.thing")
    events = [sdk_event(f"first-{id}"), bad, sdk_event(f"last-{id}")]
    body = b"[" + b",".join(to_structured_event(one).body for one in events) + b"]"
    answer = client.post("/v1/events", content=body, headers={"content-type": "application/cloudevents-batch+json; charset=utf-8"})
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    assert [(one["index"], one["id"], one["reason"]) for one in answer.json()["rejected"]] == [(1, f"bad-{id}", "unknown_type")]
    assert_purchase(server, f"first-{id}")
    assert_purchase(server, f"last-{id}")
    assert dead(server, lambda one: one.id == f"bad-{id}").payload_bytes() == to_structured_event(bad).body


# ---- OpenTelemetry


class Exporter(OTLPLogExporter):
    """The exporter as it is; what it reports is kept."""

    def __init__(self, server: CollectorProcess, **options: Any) -> None:
        headers = {"authorization": f"Bearer {KEY}"} | options.pop("headers", {})
        super().__init__(endpoint=f"{server.rest}/v1/logs", headers=headers, timeout=60, **options)
        self.results: list[LogRecordExportResult] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.results.append(super().export(batch))
        return self.results[-1]


def provider(exporter: OTLPLogExporter, service: str) -> LoggerProvider:
    of = LoggerProvider(resource=Resource.create({"service.name": service}))
    of.add_log_record_processor(BatchLogRecordProcessor(exporter))
    return of


@pytest.mark.parametrize("compression", list(Compression))
def test_the_opentelemetry_exporter(server: CollectorProcess, id: str, compression: Compression) -> None:
    exporter = Exporter(server, compression=compression)
    logs = provider(exporter, f"shop-{id}")
    logger = logs.get_logger("shop.payment", "1.2")
    logger.emit(body="paid", severity_number=SeverityNumber.INFO, timestamp=1769860800123456789, attributes={"n": 1, "l": ["a", 1.5, True]})
    logger.emit(event_name="purchase", attributes={"quantity": 1, "amount_usd": 9.5, "user.id": "u"})
    logger.emit(event_name="purchase", attributes={"quantity": 1})  # about nobody
    logs.shutdown()
    assert exporter.results == [LogRecordExportResult.SUCCESS]
    found = {of.type: of for of in raws(server, lambda of: of.source == f"shop-{id}")}
    assert found.keys() == {"log", "purchase"}
    assert (found["log"].time, found["log"].receipt.protocol) == ("2026-01-31T12:00:00.123456Z", "otlp")
    log = data(found["log"])
    assert log.pop("resource")["service.name"] == f"shop-{id}"
    assert log == {
        "severity_number": 9, "body": "paid", "attributes": {"n": 1, "l": ["a", 1.5, True]},
        "scope": {"name": "shop.payment", "version": "1.2"},
    }  # fmt: skip
    assert (found["purchase"].subject, data(found["purchase"])) == ("u", {"quantity": 1, "amount_usd": 9.5})
    letter = dead(server, lambda one: one.source == f"shop-{id}")
    assert (letter.reason, letter.type, letter.payload_encoding) == ("missing_attribute", "purchase", "base64")
    kept = ExportLogsServiceRequest.FromString(letter.payload_bytes()).resource_logs[0].scope_logs[0].log_records
    assert [of.event_name for of in kept] == ["purchase"]


@pytest.mark.filterwarnings("ignore:`LoggingHandler` in:DeprecationWarning")
def test_pythons_logging_by_way_of_opentelemetry(server: CollectorProcess, id: str) -> None:
    exporter = Exporter(server, headers={"authorization": httpx.BasicAuth(KEY, "")._auth_header})
    logs = provider(exporter, f"app-{id}")
    logger = logging.getLogger(f"app.{id}")
    logger.addHandler(LoggingHandler(logger_provider=logs))
    logger.setLevel(logging.INFO)
    try:
        raise ValueError("no money")
    except ValueError:
        logger.exception("payment %s failed", 7)
    for number in range(1200):
        logger.info("one of many %d", number)
    logs.shutdown()
    assert exporter.results == [LogRecordExportResult.SUCCESS] * len(exporter.results)
    found = [data(of) for of in raws(server, lambda of: of.source == f"app-{id}")]
    assert len(found) == 1201
    (failure,) = [of for of in found if of["body"] == "payment 7 failed"]
    assert (failure["severity_text"], failure["severity_number"]) == ("ERROR", 17)
    assert failure["attributes"]["exception.type"] == "ValueError"
    assert "Traceback" in failure["attributes"]["exception.stacktrace"]


def test_an_exporter_is_told_what_was_wrong(server: CollectorProcess, id: str) -> None:
    exporter = Exporter(server, headers={"authorization": "Bearer wrong"})
    logs = provider(exporter, f"nobody-{id}")
    logs.get_logger("x").emit(body="y")
    logs.shutdown()
    assert exporter.results == [LogRecordExportResult.FAILURE]
    assert raws(server, lambda of: of.source == f"nobody-{id}") == []


def test_an_exporter_repeats_what_kafka_could_not_take_and_ids_stay(tmp_path: Any) -> None:
    with (
        mock_kafka() as broker,
        collector(broker.address, tmp_path, COLLECTOR_DEADLINE_SECONDS="1") as server,
        ThreadPoolExecutor(1) as thread,
    ):
        server.wait()
        broker.stop()
        exporter = Exporter(server)
        logs = provider(exporter, "shop")
        for number in range(3):
            logs.get_logger("x").emit(body=f"{number}")
        sending = thread.submit(logs.shutdown)
        while 'headrace_collector_requests_total{code="503",protocol="rest"}' not in httpx.get(f"{server.rest}/metrics", timeout=30).text:
            pass
        broker.start()
        sending.result()
        assert exporter.results == [LogRecordExportResult.SUCCESS]
        found = raws(server, lambda _: True)
        assert {data(of)["body"] for of in found} == {"0", "1", "2"}
        assert len({of.id for of in found}) == 3


OTLP_JSON = {
    "resourceLogs": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
        "scopeLogs": [{
            "scope": {"name": "my.library", "version": "1.0.0", "attributes": [{"key": "my.scope", "value": {"stringValue": "some"}}]},
            "logRecords": [{
                "timeUnixNano": "1769860800000000000", "observedTimeUnixNano": "1769860801000000000", "severityNumber": 10,
                "severityText": "Information", "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174",
                "body": {"stringValue": "Example log record"},
                "attributes": [
                    {"key": "boolean.attribute", "value": {"boolValue": True}}, {"key": "int.attribute", "value": {"intValue": "10"}},
                    {"key": "double.attribute", "value": {"doubleValue": 637.704}},
                    {"key": "map.attribute", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
                ],
            }],
        }],
    }]
}  # fmt: skip


def test_otlp_in_json(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    said = json.loads(json.dumps(OTLP_JSON).replace("my.service", id))
    for _ in range(2):  # a repetition is the same event
        answer = client.post("/v1/logs", json=said)
        assert (answer.status_code, answer.headers["content-type"], answer.json()) == (200, "application/json", {})
    first, again = raws(server, lambda of: of.source == id)
    assert (first.id, first.time, bytes(first.data)) == (again.id, again.time, bytes(again.data))
    found = data(first)
    assert (found["trace_id"], found["severity_text"]) == ("5b8efff798038103d269b633813fc60c", "Information")
    assert found["attributes"] == {"boolean.attribute": True, "int.attribute": 10, "double.attribute": 637.704, "map.attribute": {"k": "v"}}
    said["resourceLogs"][0]["scopeLogs"][0]["logRecords"].append({"severityNumber": "high"})
    answer = client.post("/v1/logs", json=said)
    partial = answer.json()["partialSuccess"]
    assert (answer.status_code, partial["rejectedLogRecords"]) == (200, "1")
    assert "severityNumber" in partial["errorMessage"]


def test_answers_come_in_the_encoding_of_the_request(server: CollectorProcess, client: httpx.Client, id: str) -> None:
    logs: list[ReadableLogRecord] = []

    class Keeping(OTLPLogExporter):
        def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
            logs.extend(batch)
            return LogRecordExportResult.SUCCESS

    keeping = provider(Keeping(), id)
    keeping.get_logger("x").emit(event_name="purchase")
    keeping.shutdown()
    body = encode_logs(logs).SerializeToString()
    protobuf, json_ = {"content-type": "application/x-protobuf"}, {"content-type": "application/json"}

    answer = client.post("/v1/logs", content=body, headers=protobuf)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-protobuf")
    partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_log_records == 1
    assert "subject is missing" in partial.error_message
    assert client.post("/v1/logs", content=b"", headers=protobuf).content == b""

    def status(answer: httpx.Response, http: int, code: int) -> str:
        assert (answer.status_code, answer.headers["content-type"]) == (http, "application/x-protobuf")
        said = status_pb2.Status.FromString(answer.content)
        assert said.code == code
        return str(said.message)

    assert status(client.post("/v1/logs", content=b"\x0a", headers=protobuf), 400, 3).startswith("unparseable: ")
    assert status(client.post("/v1/logs", content=body, headers=protobuf, auth=("wrong", "")), 401, 16).startswith("unauthorized: ")
    assert status(client.post("/v1/logs", content=b"x" * 500_001, headers=protobuf), 413, 8).startswith("too_large: ")
    assert status(client.post("/v1/logs", content=b"\x0a\x00" * 600, headers=protobuf), 413, 8).startswith("too_many_events: ")
    for content, http, code in ((b"{", 400, 3), (b"[]", 400, 3)):
        answer = client.post("/v1/logs", content=content, headers=json_)
        assert (answer.status_code, answer.headers["content-type"], set(answer.json())) == (http, "application/json", {"code", "message"})
        assert answer.json()["code"] == code
    answer = client.post("/v1/logs", content=b"{}", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, 3)
    assert client.get("/v1/logs").status_code == 405
    assert httpx.post(f"{server.rest}/v1/logs", json=OTLP_JSON).status_code == 401
