"""A visit to the shop, for the demo and the tests: in a real browser, or as the requests that a browser would send.

`visit` needs playwright (a requirement of development); `browser_like_visit` needs nothing but the standard library and httpx.
"""

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import stamina

from headrace.dead_letter import Unavailable
from headrace.event import rfc3339

PRODUCTS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "static" / "products.json").read_text())
CHROMIUM = "/usr/bin/chromium"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_WIRE_NAMES = {"page": "page_view"}


@dataclass(frozen=True)
class Sent:
    """One event that a visit sent: its id and its event type."""

    id: str
    type: str


def visit(shop_url: str, chromium: str = CHROMIUM) -> list[Sent]:
    """Go through the shop in Chromium: look, click, log in, put two records into the cart, buy, leave. Names what the collector took.

    Raises Unavailable where it does not take all.
    """
    from playwright.sync_api import Response, sync_playwright

    sent: dict[str, Sent] = {}

    def note(response: Response) -> None:
        request = response.request
        if request.method == "POST" and "/v1/batch" in request.url and response.ok:
            sent.update((event.id, event) for event in sent_in(request.post_data or "{}"))

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        try:
            page = browser.new_page()
            page.on("response", note)
            page.goto(shop_url)
            page.get_by_role("button", name="Jazz").click()
            page.get_by_role("button", name="All").click()
            first, second = random.sample(PRODUCTS, 2)
            page.get_by_role("link", name=f"{first['title']} by {first['artist']}").click()
            page.locator(f"#detail [data-add={first['id']}]").click()
            page.locator("#detail [data-close]").click()
            page.locator(f"#products [data-add={second['id']}]").click()
            page.get_by_role("button", name="Log in").click()
            page.get_by_label("E-mail").fill(f"visitor-{uuid.uuid4().hex[:8]}@example.org")
            page.get_by_label("Password").fill("secret")
            page.locator("#login-form .primary").click()
            page.locator("#open-cart").click()
            page.get_by_role("button", name="Buy now").click()
            for _ in range(600):
                if page.evaluate("Object.keys(localStorage).every(key => !key.startsWith('headrace.q.'))"):
                    break
                page.wait_for_timeout(100)
            else:
                raise Unavailable(f"the collector did not take all events of a visit to {shop_url} within 60 s")
        finally:
            browser.close()
    return list(sent.values())


def sent_in(body: str) -> Iterator[Sent]:
    """The events in the body of a request to /v1/batch."""
    for call in json.loads(body).get("batch", []):
        yield Sent(call["messageId"], call.get("event") or _WIRE_NAMES.get(call["type"], call["type"]))


def browser_like_visit(collector_url: str, write_key: str, shop_url: str = "http://127.0.0.1:8020", seed: int | None = None) -> list[Sent]:
    """Post what tracker.js posts during one visit, in the same two batches. Raises Unavailable where the collector does not take them.

    `seed` fixes what is bought, not the ids.
    """
    calls = _calls_of_visit(shop_url, random.Random(seed))
    headers = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"}
    with httpx.Client(base_url=collector_url, auth=(write_key, ""), headers=headers, timeout=30) as client:
        for part in (calls[:3], calls[3:]):
            body = {"sentAt": rfc3339(datetime.now(UTC)), "batch": part}
            for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=60):  # as tracker.js does
                with attempt:
                    _post(client, body)
    return list(sent_in(json.dumps({"batch": calls})))


def _post(client: httpx.Client, body: dict[str, Any]) -> None:
    try:
        answer = client.post("/v1/batch", json=body)
    except httpx.TransportError as error:
        raise Unavailable(f"the collector at {client.base_url}: {error or type(error).__name__}") from error
    if answer.status_code != 200:
        raise Unavailable(f"the collector at {client.base_url} answered {answer.status_code}: {answer.text[:300]}")


def _calls_of_visit(shop_url: str, rng: random.Random) -> list[dict[str, Any]]:
    """The calls of one visit in the Segment wire format, in order."""
    customer, visitor, session = (str(uuid.uuid4()) for _ in range(3))
    began = datetime.now(UTC) - timedelta(seconds=40)
    bought = rng.sample(PRODUCTS, 2)
    lines = [{"product_id": p["id"], "name": p["title"], "quantity": 1, "price_usd": p["price_usd"]} for p in bought]
    page = {"url": f"{shop_url}/", "path": "/", "search": "", "title": "Millrace Records", "referrer": ""}
    user = f"web-{customer[:8]}"
    name = f"visitor-{customer[:8]}"
    order = {"quantity": 2, "amount_usd": round(sum(p["price_usd"] for p in bought), 2), "order_id": f"o-{session[:8]}", "products": lines}

    def click(button: str, text: str) -> dict[str, Any]:
        return {"type": "track", "event": "button_click", "properties": {"button_id": button, "text": text, "url": f"{shop_url}/"}}

    def track(event: str, properties: dict[str, Any]) -> dict[str, Any]:
        return {"type": "track", "event": event, "properties": properties}

    steps: list[tuple[bool, dict[str, Any]]] = [
        (False, {"type": "page", "properties": page}),
        (False, click("add-to-cart", "Add to cart")),
        (False, track("add_to_cart", lines[0])),
        (False, click("add-to-cart", "Add to cart")),
        (False, track("add_to_cart", lines[1])),
        (False, click("log-in", "Log in")),
        (True, {"type": "identify", "traits": {"email": f"{name}@example.org", "name": name}}),
        (True, track("login", {"method": "password"})),
        (True, click("buy", "Buy now")),
        (True, track("purchase", order)),
    ]
    calls = []
    for number, (known, call) in enumerate(steps):
        if "properties" in call:
            call["properties"] = {"session_id": session, **call["properties"]}
        at = rfc3339(began + timedelta(seconds=4 * number))
        calls.append(
            {"messageId": str(uuid.uuid4()), "timestamp": at, "anonymousId": visitor, **({"userId": user} if known else {}), **call}
        )
    return calls
