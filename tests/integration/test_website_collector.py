"""tracker.js in Chromium against the collector itself: real preflights, beacons, and answers that a page may read."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from producers.website.visit import CHROMIUM_FLAGS
from tests.collector_found import data, raws
from tests.collector_mock_kafka import MockKafka, mock_kafka
from tests.collector_process import KEY, CollectorProcess, collector
from tests.integration.website_server import served_shop
from verify.ports import free_port


@pytest.fixture(scope="module")
def broker() -> Iterator[MockKafka]:
    with mock_kafka() as running:
        yield running


@pytest.fixture(scope="module")
def shop_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def server(broker: MockKafka, shop_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CollectorProcess]:
    settings = {"COLLECTOR_CORS_ORIGINS": f"http://127.0.0.1:{shop_port}", "COLLECTOR_DEADLINE_SECONDS": "1"}
    with collector(broker.address, tmp_path_factory.mktemp("collector"), **settings) as running:
        running.wait()
        yield running


@pytest.fixture(scope="module")
def shop_url(server: CollectorProcess, shop_port: int) -> Iterator[str]:
    with served_shop(server.rest, KEY, shop_port) as url:
        yield url


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


def until(true: Callable[[], bool], page: Page) -> None:
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(200)
    pytest.fail("it did not happen within 40 s")


def track(page: Page, button: str) -> str:
    id: str = page.evaluate("button => headrace.track('button_click', {button_id: button})", button)
    return id


def queued(page: Page) -> int:
    count: int = page.evaluate("Object.keys(localStorage).filter(key => key.startsWith('headrace.q.')).length")
    return count


def test_a_page_on_the_list_sends_across_origins(context: BrowserContext, server: CollectorProcess, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    id = track(page, "größe")
    page.evaluate("headrace.identify('c-1', {plan: 'pro'})")
    until(lambda: queued(page) == 0, page)
    (click,) = raws(server, lambda of: of.id == id)
    assert (click.type, data(click)["button_id"], click.receipt.protocol) == ("button_click", "größe", "segment")
    assert "Chrome" in str(click.receipt.user_agent)
    (known,) = raws(server, lambda of: of.type == "identify")
    assert (known.subject, data(known)) == ("c-1", {"plan": "pro"})


def test_what_is_left_when_the_page_goes_comes_by_beacon(context: BrowserContext, server: CollectorProcess, shop_url: str) -> None:
    page = context.new_page()
    page.goto(shop_url)
    until(lambda: queued(page) == 0, page)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.post_data or "") if request.resource_type == "fetch" else None)
    id: str = page.evaluate("const id = headrace.track('button_click', {button_id: 'leave'}); location.href = '/healthz'; id")
    page.wait_for_url("**/healthz")
    until(lambda: len(raws(server, lambda of: of.id == id)) == 1, page)
    assert not [body for body in fetched if id in body]


def test_a_page_that_is_not_on_the_list_gets_nothing_in_by_fetch(context: BrowserContext, server: CollectorProcess) -> None:
    with served_shop(server.rest, KEY) as elsewhere:
        page = context.new_page()
        failures: list[str] = []
        page.on("console", lambda message: failures.append(message.text) if message.type == "error" else None)
        page.goto(elsewhere)
        id = track(page, "elsewhere")
        until(lambda: any("CORS" in text for text in failures), page)
        assert queued(page) == 2
        assert raws(server, lambda of: of.id == id) == []


def test_a_page_reads_when_to_come_again(context: BrowserContext, server: CollectorProcess, shop_url: str, broker: MockKafka) -> None:
    page = context.new_page()
    page.goto(shop_url)
    until(lambda: queued(page) == 0, page)
    broker.stop()
    try:
        id = track(page, "outage")
        call = """async ([url, key]) => {
            const headers = {'Content-Type': 'application/json', Authorization: 'Basic ' + btoa(key + ':')};
            const body = JSON.stringify({batch: [{messageId: 'x', type: 'page'}]});
            const answer = await fetch(url + '/v1/batch', {method: 'POST', body, headers});
            return [answer.status, answer.headers.get('Retry-After'), (await answer.json()).code];
        }"""
        status, retry_after, code = page.evaluate(call, [server.rest, KEY])
        assert (status, code) == (503, "unavailable")
        assert int(retry_after) > 0
        assert queued(page) == 1
    finally:
        broker.start()
    until(lambda: queued(page) == 0, page)
    assert raws(server, lambda of: of.id == id)
