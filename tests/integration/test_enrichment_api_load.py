"""More than the enrichment API can have under way: refused at once, and what was taken is answered. The API is a process of its own."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest

from enricher.answer import Failure, Why
from enricher.breaker import CircuitBreaker
from enricher.client import EnrichmentApi
from headrace import event as events
from tests import models
from tests.enrichment_api_process import enrichment_api

EVENT = {"id": "e-1", "source": "shop", "type": "purchase", "time": "2026-11-22T00:00:00Z", "subject": "c-1"}
BODY = json.dumps({"events": [EVENT | {"data": {"quantity": 1, "amount_usd": 9.99}}]}).encode()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("api")
    models.release(folder, "v1", models.constant(0.25))
    limits = {"MAX_IN_FLIGHT": "3", "MAX_BODY_BYTES": "2000", "MAX_IN_FLIGHT_BYTES": "4000", "BODY_SECONDS": "30"}
    with enrichment_api(folder, **limits) as (url, _):
        yield url


def score(url: str, body: bytes = BODY) -> httpx.Response:
    return httpx.post(url + "/v1/score", content=body, timeout=60)


def in_flight(url: str) -> dict[str, float]:
    lines = httpx.get(url + "/metrics", timeout=60).text.splitlines()
    found = (line.split() for line in lines if line.startswith("enrichment_api_in_flight_"))
    return {name.removeprefix("enrichment_api_in_flight_"): float(value) for name, value in found}


def begun(url: str, length: int, sent: bytes = b"") -> socket.socket:
    """A request whose body does not come: it says `length` (chunked: -1)."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0))
    how = b"transfer-encoding: chunked" if length < 0 else b"content-length: %d" % length
    chunk = b"%x\r\n%s\r\n" % (len(sent), sent) if length < 0 else sent
    connection.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\n" + how + b"\r\n\r\n" + chunk)
    return connection


def until(url: str, **expected: float) -> None:
    while in_flight(url) != expected:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("lengths", "held"),
    [
        ([10, 10, 10], {"requests": 3, "bytes": 30}),
        ([2000, 2000], {"requests": 2, "bytes": 4000}),
        ([-1, -1], {"requests": 2, "bytes": 3900}),
    ],
)
def test_what_is_beyond_a_bound_gets_503_and_is_taken_again_after(url: str, lengths: list[int], held: dict[str, float]) -> None:
    with ExitStack() as stack:
        for length in lengths:
            stack.enter_context(begun(url, length, b" " * 1950 if length < 0 else b""))
        until(url, **held)
        for _ in range(3):
            response = score(url)
            assert (response.status_code, response.headers["retry-after"], response.json()["code"]) == (503, "1", "overloaded")
        assert "under way (ENRICHMENT_API_MAX_IN_FLIGHT" in response.json()["message"]
        assert httpx.get(url + "/readyz", timeout=60).status_code == 200
        parts = list(EnrichmentApi(url, 30, CircuitBreaker(9, 9)).score([raw()]))
        assert [isinstance(part, Failure) and part.why for part in parts] == [Why.STATUS]  # to the enricher it is away for a moment
    until(url, requests=0, bytes=0)
    assert score(url).status_code == 200


def raw() -> events.RawEvent:
    return events.RawEvent(
        id="e-1",
        source="shop",
        type="purchase",
        time="2026-11-22T00:00:00Z",
        received_at="2026-11-22T00:00:00Z",
        dataschema="purchase/1-0-0",
        data=msgspec.Raw(b'{"quantity":1,"amount_usd":1}'),
        receipt=events.Receipt(collector_id="c", key_id="k", protocol="rest", client="x", user_agent="y"),
        subject="c-1",
    )


def test_a_body_that_is_too_large_is_refused_before_it_comes(url: str) -> None:
    with begun(url, 2001) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    until(url, requests=0, bytes=0)


def test_a_body_that_does_not_come_gives_its_place_back(tmp_path: Path) -> None:
    models.release(tmp_path, "v1", models.constant(0.25))
    with enrichment_api(tmp_path, BODY_SECONDS="0.5", MAX_IN_FLIGHT="1") as (url, _):
        with begun(url, 100, b"{") as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        until(url, requests=0, bytes=0)
        assert score(url).status_code == 200


def test_the_cache_gives_what_the_model_gave(tmp_path: Path) -> None:
    models.release(tmp_path, "v1", models.constant(0.25))
    with enrichment_api(tmp_path, CACHE_ROWS="100") as (url, _):
        answers: list[Any] = [score(url).json()["enrichments"] for _ in range(3)]
        assert answers[0] == answers[1] == answers[2]
        metrics = httpx.get(url + "/metrics").text
        assert "enrichment_api_cache_hits_total 2.0" in metrics
        assert "enrichment_api_cache_misses_total 1.0" in metrics
