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

pytestmark = [pytest.mark.usefixtures("platform"), pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
SOMETHING_DRAWN = """() => [...document.querySelectorAll('canvas')].some(
    canvas => canvas.width && canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(value => value))"""


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
    assert page.locator("h1", has_text="fact_session").count() == 1
    assert {"fact_activity", "mart_funnel", "dim_customer"} <= set(page.locator("body").inner_text().split())


def test_the_page_draws_the_lineage(page: Page) -> None:
    page.goto("/#!/overview?g_v=1")
    page.reload()  # only what stands after the # is another than before
    page.get_by_role("heading", name="Lineage Graph").wait_for(timeout=120_000)
    page.wait_for_function(SOMETHING_DRAWN, timeout=120_000)


def test_another_address_is_not_found(page: Page) -> None:
    assert page.request.get("/etc/passwd").status == 404
