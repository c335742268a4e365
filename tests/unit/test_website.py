"""The shop page as it is served, and what a visit without a browser sends."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from headrace.registry import Registry
from producers.website.app import STATIC, safe_json, shop
from producers.website.visit import PRODUCTS, _calls_of_visit, sent_in

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(shop("http://collector.example:8000", "key</script>&"))


def test_the_tracker_stays_small() -> None:
    assert len((STATIC / "tracker.js").read_bytes()) < 5_000


def test_the_page_carries_its_settings(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    found = re.findall(r'<script type="application/json" id="settings">(.*?)</script>', answer.text)
    assert [json.loads(text) for text in found] == [{"collector": "http://collector.example:8000", "writeKey": "key</script>&"}]
    assert "connect-src 'self' http://collector.example:8000;" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/healthz", "text/plain"),
        ("/static/tracker.js", "text/javascript"),
        ("/static/shop.js", "text/javascript"),
        ("/static/covers.js", "text/javascript"),
        ("/static/shop.css", "text/css"),
        ("/static/products.json", "application/json"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
def test_files(client: TestClient, path: str, media_type: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == media_type


def test_nothing_else_is_served(client: TestClient) -> None:
    assert client.get("/static/../settings.py").status_code == 404
    assert client.get("/static/%2e%2e/settings.py").status_code == 404


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_settings_cannot_end_their_element(value: Any) -> None:
    text = safe_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")


def test_products_are_whole() -> None:
    assert len(PRODUCTS) == 12
    assert len({product["id"] for product in PRODUCTS}) == 12
    designs = (STATIC / "covers.js").read_text()
    for product in PRODUCTS:
        assert product["price_usd"] > 0
        assert f"  {product['cover']}: (" in designs
        assert len(product["colors"]) == 3


@given(st.integers())
def test_a_visit_is_valid_by_the_schemas(seed: int) -> None:
    import random

    calls = _calls_of_visit("http://127.0.0.1:8020", random.Random(seed))
    sent = list(sent_in(json.dumps({"batch": calls})))
    assert [event.type for event in sent] == [
        "page_view", "button_click", "add_to_cart", "button_click", "add_to_cart",
        "button_click", "identify", "login", "button_click", "purchase",
    ]  # fmt: skip
    assert len({event.id for event in sent}) == len(sent)
    for call, event in zip(calls, sent, strict=True):
        REGISTRY.validate(REGISTRY.schema_ref(event.type), json.dumps(call.get("properties") or call["traits"]).encode())
    lines, order = [calls[2]["properties"], calls[4]["properties"]], calls[9]["properties"]
    assert order["amount_usd"] == round(sum(line["price_usd"] for line in lines), 2)
    assert [line["product_id"] for line in order["products"]] == [line["product_id"] for line in lines]
    assert {call.get("userId") for call in calls[:6]} == {None}
    assert len({call["userId"] for call in calls[6:]}) == 1
