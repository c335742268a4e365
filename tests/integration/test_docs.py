"""`headrace docs`: the page that it builds, served and looked at in Chromium, which gets at nothing else."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from cli.docs import serve
from producers.website.visit import CHROMIUM, CHROMIUM_FLAGS

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built() -> Path:
    command = [sys.executable, "-m", "cli", "docs", "--build-only"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def page(built: Path) -> Iterator[Page]:
    server = serve(built.read_bytes(), os.environ["BIND_HOST"], 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://{os.environ['BIND_HOST']}:{server.server_address[1]}/"

    def ours_only(route: Route) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        opened = browser.new_page(base_url=address)
        opened.route("**/*", ours_only)
        yield opened
        browser.close()
    server.shutdown()
    server.server_close()


def test_the_page_describes_a_model_and_its_columns(page: Page) -> None:
    page.goto("/#!/model/model.headrace.fact_session")
    page.get_by_text("Time of its first event.").first.wait_for(timeout=120_000)
    assert page.get_by_role("heading", name="fact_session").count() >= 1
    assert page.get_by_text("fact_activity").count() >= 1


def test_the_page_shows_the_lineage(page: Page) -> None:
    page.goto("/#!/overview?g_v=1")
    page.locator("canvas").first.wait_for(state="visible", timeout=120_000)
    nodes = page.evaluate("() => angular.element(document.body).injector().get('graph').graph.elements.map(each => each.data.id || '')")
    assert {"model.headrace.mart_funnel", "model.headrace.fact_session", "source.headrace.silver.page_view"} <= set(nodes)


def test_another_address_is_not_found(page: Page) -> None:
    assert page.request.get("/etc/passwd").status == 404
