"""What the OpenAPI document says and what the collector does are the same, as Schemathesis finds it."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.schemas import BaseSchema

from collector import openapi, otlp
from tests.collector_mock_kafka import mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector

load_all_checks()


@schemathesis.serializer(otlp.PROTOBUF)
def _as_it_is(_: Any, value: Any) -> bytes:
    return getattr(value, "data", None) or str(value).encode()


# A request that can be read is never refused for what its events hold (DESIGN.md: per-event problems are named in a 200), nor is one taken
# because its JSON is of the form: it may say that it is compressed, and not be.
LIKE_TRACK = ["/v1/page", "/v1/screen", "/v1/group", "/v1/alias"]  # the same but for their names, and each takes some seconds
_NOT_OURS = {"negative_data_rejection", "positive_data_acceptance"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    with mock_kafka() as broker, collector(broker.address, tmp_path_factory.mktemp("collector")) as one:
        one.wait()
        yield one


schema = schemathesis.openapi.from_dict(msgspec.json.decode(openapi.DOCUMENT)).exclude(path=LIKE_TRACK)


def test_the_document_is_served(running: CollectorProcess) -> None:
    assert httpx.get(f"{running.rest}/openapi.json").content == openapi.DOCUMENT


def _described(operations: BaseSchema) -> Any:
    """The test of what is described of `operations`."""

    @operations.parametrize()
    @settings(
        max_examples=10,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    def what_happens(case: schemathesis.Case[Any], running: CollectorProcess) -> None:
        checks: list[Any] = [CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in _NOT_OURS]
        case.call_and_validate(base_url=running.rest, auth=(KEY, ""), checks=checks)

    return what_happens


# A function for each operation: Schemathesis' tests of one function have one id, and of tests with one id xdist runs one.
for _path, _methods in schema.raw_schema["paths"].items():
    for _method in _methods:
        if _path not in LIKE_TRACK:
            globals()[f"test_what_is_described_is_what_happens_{_method}_{_path}"] = _described(schema.include(path=_path, method=_method))


def test_nothing_failed_meanwhile(running: CollectorProcess) -> None:
    assert "Traceback" not in running.log.read_text()
    assert "could not be served" not in running.log.read_text()
