"""tracker.js in Chromium, against a collector that is told what to answer: what it keeps, sends again, drops."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from producers.website.visit import CHROMIUM_FLAGS
from tests.integration.website_server import served_shop


@dataclass
class Request:
    """One POST to /v1/batch."""

    batch: list[dict[str, Any]]
    headers: dict[str, str]
    path: str
    answered: int

    @property
    def beacon(self) -> bool:
        return "writeKey=" in self.path


@dataclass
class Answering:
    """A collector that notes what it gets, and answers what it is told: a status, with Retry-After where that is not None."""

    requests: list[Request] = field(default_factory=list)
    status: int = 200
    retry_after: str | None = None
    url: str = ""

    def ids(self) -> list[str]:
        """Ids that were accepted with an answer that the page could read, in order."""
        return [call["messageId"] for one in self.requests if one.answered == 200 and not one.beacon for call in one.batch]

    def first(self) -> list[str]:
        """Those ids in the order of their first arrival: what a page had sent when it was left goes out again with the next one."""
        return list(dict.fromkeys(self.ids()))

    def names(self) -> list[str]:
        return [call.get("event", call["type"]) for one in self.requests if one.answered == 200 for call in one.batch]


@pytest.fixture
def collector() -> Iterator[Answering]:
    answering = Answering()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_OPTIONS(self) -> None:
            self._answer(204)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answering.requests.append(Request(json.loads(body)["batch"], dict(self.headers.items()), self.path, answering.status))
            self._answer(answering.status)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Access-Control-Allow-Origin", self.headers.get("Origin", "*"))
            self.send_header("Access-Control-Allow-Credentials", "true")
            self.send_header("Access-Control-Allow-Headers", "authorization, content-type")
            self.send_header("Access-Control-Expose-Headers", "retry-after")
            if answering.retry_after is not None:
                self.send_header("Retry-After", answering.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    answering.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield answering
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("no chromium to test tracker.js in: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(60_000)
    yield context
    context.close()


@pytest.fixture
def shop_url(collector: Answering) -> Iterator[str]:
    with served_shop(collector.url, "test-key") as url:
        yield url


def queued(page: Page) -> list[str]:
    """The ids of the events that wait in localStorage, oldest first."""
    ids: list[str] = page.evaluate(
        "Object.keys(localStorage).filter(k => k.startsWith('headrace.q.')).sort().map(k => JSON.parse(localStorage[k]).messageId)"
    )
    return ids


def until(page: Page, true: Callable[[], bool]) -> None:
    for _ in range(800):
        if true():
            return
        page.wait_for_timeout(50)
    pytest.fail("it did not happen within 40 s")


def test_a_visit_is_told_in_batches(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    page.locator("#products [data-add=cd-03]").click()
    page.locator("#products [data-add=cd-05]").click()
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("E-mail").fill("Ada@example.org")
    page.get_by_label("Password").fill("x")
    page.locator("#login-form .primary").click()
    page.locator("#open-cart").click()
    page.get_by_role("button", name="Buy now").click()
    until(page, lambda: "purchase" in collector.names() and not queued(page))
    assert collector.names() == [
        "page", "button_click", "add_to_cart", "button_click", "add_to_cart", "button_click", "button_click", "identify", "login",
        "button_click", "button_click", "purchase",
    ]  # fmt: skip
    calls = {call.get("event", call["type"]): call for one in collector.requests for call in one.batch}
    first = collector.requests[0]
    assert first.headers["Authorization"] == "Basic dGVzdC1rZXk6"  # test-key:
    assert first.headers["Content-Type"] == "application/json"
    assert calls["page"]["properties"]["url"] == f"{shop_url}/"
    assert calls["page"]["properties"]["title"] == "Millrace Records"
    assert "userId" not in calls["page"]
    order = calls["purchase"]["properties"]
    assert (order["quantity"], order["amount_usd"]) == (2, 28.98)
    assert calls["purchase"]["userId"] == calls["identify"]["userId"] == calls["login"]["userId"]
    assert calls["purchase"]["userId"].startswith("web-")
    assert "@" not in calls["purchase"]["userId"]
    assert calls["login"]["properties"]["method"] == "password"
    assert len({call["anonymousId"] for call in calls.values()}) == 1
    assert len({call["properties"]["session_id"] for name, call in calls.items() if name != "identify"}) == 1
    assert len(set(collector.ids())) == len(collector.ids())


def test_events_outlive_an_outage_and_a_reload(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.route("**/v1/batch*", lambda route: route.abort("connectionrefused"))
    page.goto(shop_url)
    ids = [page.evaluate("n => headrace.track('button_click', {button_id: 'b' + n})", n) for n in range(5)]
    page.wait_for_timeout(1_500)
    assert collector.requests == []
    assert queued(page)[1:] == ids
    page.unroute("**/v1/batch*")
    page.reload()
    until(page, lambda: not queued(page))
    assert [id for id in collector.first() if id in ids] == ids


@pytest.mark.parametrize("status", [429, 500, 503])
def test_sends_again_what_the_collector_could_not_take(context: BrowserContext, collector: Answering, shop_url: str, status: int) -> None:
    collector.status, collector.retry_after = status, "1"
    page = context.new_page()
    page.goto(shop_url)
    until(page, lambda: len(collector.requests) >= 2)
    waiting = queued(page)
    assert len(waiting) == 1
    collector.status = 200
    until(page, lambda: not queued(page))
    assert collector.ids() == waiting


def test_waits_as_long_as_it_is_asked_to(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    collector.status, collector.retry_after = 503, "3600"
    page = context.new_page()
    page.goto(shop_url)
    until(page, lambda: len(collector.requests) == 1)
    page.evaluate("headrace.track('button_click', {button_id: 'b'})")
    page.wait_for_timeout(3_000)  # back-off alone would have tried twice more
    assert len(collector.requests) == 1
    assert len(queued(page)) == 2


@pytest.mark.parametrize("status", [400, 401, 413])
def test_drops_what_is_refused_for_good(context: BrowserContext, collector: Answering, shop_url: str, status: int) -> None:
    collector.status = status
    page = context.new_page()
    warnings: list[str] = []
    page.on("console", lambda message: warnings.append(message.text) if message.type == "warning" else None)
    page.goto(shop_url)
    until(page, lambda: not queued(page) and len(warnings) == 1)
    assert warnings[0].startswith("headrace: dropped 1")
    page.wait_for_timeout(1_500)
    assert len(collector.requests) == 1


def test_leaving_the_page_sends_a_beacon(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    until(page, lambda: not queued(page))
    id = page.evaluate("const id = headrace.track('button_click', {button_id: 'leave'}); location.href = '/healthz'; id")
    page.wait_for_url("**/healthz")
    until(page, lambda: any(one.beacon for one in collector.requests))
    beacons = [one for one in collector.requests if one.beacon]
    assert [call["messageId"] for one in beacons for call in one.batch] == [id]
    assert beacons[0].path == "/v1/batch?writeKey=test-key"
    assert beacons[0].headers["Content-Type"].startswith("text/plain")
    page.goto(shop_url)
    until(page, lambda: not queued(page))
    again = [call for one in collector.requests if not one.beacon for call in one.batch if call["messageId"] == id]
    assert again == beacons[0].batch  # nobody answered the beacon: the same event, the same content, goes out again


def test_two_tabs_send_each_event_once(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    first, second = context.new_page(), context.new_page()
    first.goto(shop_url)
    second.goto(shop_url)
    ids = [page.evaluate("n => headrace.track('button_click', {button_id: 'b' + n})", n) for n in range(40) for page in (first, second)]
    until(first, lambda: set(ids) <= set(collector.ids()) and not queued(first))
    assert sorted(id for id in collector.ids() if id in ids) == sorted(ids)


def test_what_a_closed_tab_leaves_another_sends(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    now = datetime.now(UTC)
    context.clock.set_fixed_time(now)  # however slow this machine is
    closed, other = context.new_page(), context.new_page()
    closed.route("**/v1/batch*", lambda route: route.abort("connectionrefused"))
    closed.goto(shop_url)
    other.goto(shop_url)
    left = [closed.evaluate("n => headrace.track('button_click', {button_id: 'b' + n})", n) for n in range(3)]
    other.evaluate("headrace.track('button_click', {button_id: 'own'})")
    until(other, lambda: len(collector.ids()) >= 2)
    assert not set(left) & set(collector.ids())
    closed.close()
    context.clock.set_fixed_time(now + timedelta(seconds=6))
    other.evaluate("headrace.track('button_click', {button_id: 'own'})")
    until(other, lambda: not queued(other))
    assert [id for id in collector.ids() if id in left] == left


def test_keeps_the_newest_thousand(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    collector.status = 503
    page = context.new_page()
    page.goto(shop_url)
    until(page, lambda: len(collector.requests) >= 1)
    ids = page.evaluate("Array.from({length: 1010}, (_, n) => headrace.track('button_click', {button_id: 'b' + n}))")
    assert queued(page) == ids[10:]
    collector.status = 200
    page.reload()
    until(page, lambda: not queued(page))
    accepted = collector.first()
    assert not set(ids[:10]) & set(accepted)
    # The page view of the reload pushes one more out, unless the page that was left had sent that just before.
    assert [id for id in accepted if id in ids[11:]] == ids[11:]
    assert all(len(one.batch) <= 100 for one in collector.requests)


def test_works_where_storage_is_forbidden(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.add_init_script("Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})")
    page.goto(shop_url)
    id = page.evaluate("headrace.track('button_click', {button_id: 'b'})")
    until(page, lambda: id in collector.ids())


def test_works_where_storage_is_full(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    until(page, lambda: not queued(page))
    page.evaluate(
        "for (let size = 1 << 22; size >= 1; size >>= 1) try { while (true) localStorage['x' + Math.random()] = 'x'.repeat(size) } catch {}"
    )
    id = page.evaluate("headrace.track('button_click', {button_id: 'b'})")
    until(page, lambda: id in collector.ids())


def test_large_events_go_alone_and_without_keepalive(context: BrowserContext, collector: Answering, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    ids = page.evaluate("[30000, 15000, 15000, 90000].map(size => headrace.track('page_view', {url: 'x', filler: 'é'.repeat(size)}))")
    until(page, lambda: set(ids) <= set(collector.ids()))
    sizes = [len(json.dumps(one.batch, ensure_ascii=False)) for one in collector.requests]
    assert [len(one.batch) for one in collector.requests if set(ids) & {call["messageId"] for call in one.batch}] != [4]
    assert all(size < 20_000 or len(one.batch) == 1 for size, one in zip(sizes, collector.requests, strict=True))
