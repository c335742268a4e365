"""Both dashboards as a person sees them: opened in Chromium by a user who has logged in, every chart there and filled."""

import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yaml
from playwright.sync_api import Page, Response, sync_playwright
from trino.dbapi import connect
from trino.exceptions import TrinoUserError

from cli.airflow import run_dag

FOLDER = Path(__file__).parent.parent.parent / "dashboards" / "dashboards"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
VISIT_COUNTER = "scarf.sh"  # built into Superset's pages; our policy blocks it, and the browser says so
PATIENCE = 240  # seconds, for a machine that does much else


@pytest.fixture(scope="module")
def filled() -> None:
    """A scored purchase and a rejected event of this minute, and purchases of the replay in gold."""
    mark = f"dashboards-{uuid.uuid4().hex[:12]}"
    purchase = {"specversion": "1.0", "source": mark, "type": "purchase", "subject": "customer-1", "time": datetime.now(UTC).isoformat()}
    events = [
        {**purchase, "id": f"{mark}-good", "data": {"quantity": 1, "amount_usd": 11.77}},
        {**purchase, "id": f"{mark}-bad", "data": {"quantity": "one", "amount_usd": 11.77}},
    ]
    answer = httpx.post(
        f"http://{os.environ['BIND_HOST']}:{os.environ['COLLECTOR_REST_PORT']}/v1/events",
        content=json.dumps(events),
        headers={"Content-Type": "application/cloudevents-batch+json"},
        auth=(os.environ["HEADRACE_WRITE_KEY"], ""),
        timeout=60,
    )
    assert answer.status_code == 200, answer.text
    _until(lambda: _count(f"elasticsearch.default.events_all WHERE source = '{mark}' AND enrichment LIKE '%score%'") == 1)
    _until(lambda: _count(f"elasticsearch.default.dead_letters_all WHERE source = '{mark}'") == 1)
    if not _count("lake.gold.mart_daily_sales WHERE source = 'cdnow'"):
        _until(lambda: _count("lake.bronze.events WHERE source = 'cdnow'") > 0)
        run_dag(os.environ, "curate", 600)
    assert _count("lake.gold.mart_daily_sales WHERE source = 'cdnow'") > 0


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser in which the administrator has logged in."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("no chromium to open the dashboards in: apt-get install chromium", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        # Charts are asked for once they are in sight: a window as high as the page.
        page = browser.new_page(
            viewport={"width": 1500, "height": 3000}, base_url=f"http://{os.environ['BIND_HOST']}:{os.environ['SUPERSET_PORT']}"
        )
        page.set_default_timeout(PATIENCE * 1000)
        page.goto("/login/")
        page.fill("input[name=username], input#username", os.environ["SUPERSET_ADMIN_USER"])
        page.fill("input[name=password], input#password", os.environ["SUPERSET_ADMIN_PASSWORD"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/welcome/**")
        yield page
        browser.close()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", ["sales", "live_events"])
def test_every_chart_fills(name: str, page: Page) -> None:
    dashboard = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    cells = [item for item in dashboard["position"].values() if isinstance(item, dict) and item["type"] == "CHART"]
    titles = [cell["meta"]["sliceName"] for cell in cells]
    answers: list[Response] = []
    troubles: list[str] = []
    page.on("response", lambda response: answers.append(response) if "/api/v1/chart/data" in response.url else None)
    page.on("console", lambda message: troubles.append(message.text) if "Content Security Policy" in message.text else None)

    page.goto(f"/superset/dashboard/{dashboard['slug']}/")
    charts = page.locator("[data-test=chart-grid-component]")
    charts.nth(len(titles) - 1).wait_for()
    _until(lambda: len({_chart(response) for response in _asked(answers)}) == len(titles), page)
    drawn = charts.locator(":is(canvas, table, .header-line)")
    _until(lambda: drawn.count() >= len(titles) or page.locator("[role=alert]").count() > 0, page)

    assert charts.count() == len(titles)
    for title in titles:
        assert page.get_by_text(title, exact=True).first.is_visible(), title
    assert [_problem(response) for response in _asked(answers) if _problem(response)] == []
    assert page.locator("[role=alert], .ant-alert-error").all_inner_texts() == []
    assert page.get_by_text("No results were returned").count() == 0
    assert [trouble for trouble in troubles if VISIT_COUNTER not in trouble] == []


def _asked(answers: list[Response]) -> list[Response]:
    """The charts' own questions: those of the filter bar come without a chart."""
    return [response for response in answers if _chart(response)]


def _chart(response: Response) -> str | None:
    """The number of the chart that asked; a chart asks again when the dashboard refreshes itself."""
    found = re.search(r'"slice_id":\s*(\d+)', unquote(response.url))
    return found[1] if found else None


def _problem(response: Response) -> str | None:
    if response.status != 200:
        return f"{response.status} {response.text()[:300]}"
    results: list[dict[str, Any]] = response.json()["result"]
    empty = not results[0]["data"] or all(value is None for row in results[0]["data"] for value in row.values())
    return f"no data: {results[0]['query']}" if empty else None


def _count(table_and_condition: str) -> int:
    """How many rows there are; none where there is no table yet."""
    with connect(  # type: ignore[no-untyped-call]
        host=os.environ["BIND_HOST"], port=int(os.environ["TRINO_PORT"]), user=os.environ["TRINO_USER"]
    ) as connection:
        cursor = connection.cursor()
        try:
            cursor.execute(f"SELECT count(*) FROM {table_and_condition}")
            return int(cursor.fetchone()[0])
        except TrinoUserError:
            return 0


def _until(holds: Callable[[], bool], page: Page | None = None) -> None:
    """Wait for something; a page's own events are heard meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not come within {PATIENCE} s")
        if page:
            page.wait_for_timeout(500)
        else:
            time.sleep(0.5)
