"""The dashboards as a viewer sees them, opened in Chromium, every chart there and filled; and what a viewer may not."""

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
from runtime.dashboards import log_in

pytestmark = pytest.mark.usefixtures("platform")

FOLDER = Path(__file__).parent.parent.parent / "dashboards" / "dashboards"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
VISIT_COUNTER = "scarf.sh"  # built into Superset's pages; our policy blocks it, and the browser says so
PATIENCE = 240  # seconds, for a machine that does much else


@pytest.fixture(scope="module")
def filled() -> None:
    """A scored purchase, one of the same id, and a rejected event of this minute; purchases of the replay in gold; all of it curated."""
    mark = f"dashboards-{uuid.uuid4().hex[:12]}"
    purchase = {"specversion": "1.0", "source": mark, "type": "purchase", "subject": "customer-1", "time": datetime.now(UTC).isoformat()}
    events = [
        {**purchase, "id": f"{mark}-good", "data": {"quantity": 1, "amount_usd": 11.77}},
        {**purchase, "id": f"{mark}-good", "data": {"quantity": 2, "amount_usd": 11.77}},
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
    _until(lambda: _count("lake.bronze.events WHERE source = 'cdnow'") > 0)
    _until(lambda: _count(f"lake.bronze.events WHERE source = '{mark}'") == 2)
    _until(lambda: _count(f"lake.bronze.dead_letters WHERE source = '{mark}'") == 1)
    if not _count(f"lake.silver.quarantine WHERE source = '{mark}'"):  # else a run on schedule was faster
        run_dag(os.environ, "curate", 600)
    assert _count(f"lake.silver.quarantine WHERE source = '{mark}' AND reason = 'id_conflict'") == 1
    _until(lambda: _count("lake.gold.mart_daily_sales WHERE source = 'cdnow'") > 0)
    _until(lambda: _count("lake.gold.mart_model_weeks WHERE model = 'repurchase'") > 0)
    _until(lambda: _count("lake.gold.runs WHERE job = 'silver' AND rows_written > 0") > 0)


@pytest.fixture
def page() -> Iterator[Page]:
    """A browser in which the viewer has logged in."""
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
        page.fill("input[name=username], input#username", os.environ["SUPERSET_VIEWER_USER"])
        page.fill("input[name=password], input#password", os.environ["SUPERSET_VIEWER_PASSWORD"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/welcome/**")
        yield page
        browser.close()


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("name", ["sales", "live_events", "quality", "pipeline", "models"])
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
    for of in dashboard["metadata"]["native_filter_configuration"]:
        for condition in of["defaultDataMask"]["extraFormData"].get("filters", []):
            asked = [response.json()["result"][0]["query"] for response in _asked(answers)]
            wanted = f"{condition['col']} IN ('{condition['val'][0]}')"
            cells_reached = len(titles) - len(of["scope"]["excluded"])
            assert len([query for query in asked if wanted in query]) >= cells_reached, of["name"]


@pytest.fixture(scope="module")
def viewer() -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{os.environ['BIND_HOST']}:{os.environ['SUPERSET_PORT']}", timeout=120) as client:
        names = {"SUPERSET_ADMIN_USER": "SUPERSET_VIEWER_USER", "SUPERSET_ADMIN_PASSWORD": "SUPERSET_VIEWER_PASSWORD"}
        log_in(client, {name: os.environ[of] for name, of in names.items()})
        client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").raise_for_status().json()["result"]
        client.headers["Referer"] = str(client.base_url)
        yield client


def test_a_viewer_sees_every_dashboard(viewer: httpx.Client) -> None:
    found = viewer.get("/api/v1/dashboard/").raise_for_status().json()["result"]
    assert sorted(dashboard["slug"] for dashboard in found) == ["live-events", "models", "pipeline", "quality", "sales"]


def test_a_viewer_cannot_query_or_change_anything(viewer: httpx.Client) -> None:
    refused = {
        "SQL": viewer.post("/api/v1/sqllab/execute/", json={"database_id": 1, "sql": "SELECT 1"}),
        "databases": viewer.get("/api/v1/database/"),
        "data sets": viewer.get("/api/v1/dataset/"),
        "users": viewer.get("/api/v1/security/users/"),
        "a dashboard": viewer.put("/api/v1/dashboard/1", json={"dashboard_title": "Mine"}),
        "a chart": viewer.post("/api/v1/chart/", json={"slice_name": "Mine", "datasource_id": 1, "datasource_type": "table"}),
        "export": viewer.get("/api/v1/dashboard/export/?q=!(1)"),
    }
    assert {what: answer.status_code for what, answer in refused.items() if answer.status_code not in (401, 403, 404)} == {}
    assert refused["SQL"].status_code == 403


def test_a_viewer_asks_a_chart_only_what_it_shows(viewer: httpx.Client) -> None:
    [chart] = [
        each
        for each in viewer.get("/api/v1/dashboard/sales/charts").raise_for_status().json()["result"]
        if each["slice_name"] == "Revenue by source"
    ]
    number, kind = chart["form_data"]["datasource"].split("__")

    def ask(columns: list[Any], metrics: list[Any], result_type: str = "full", **extras: str) -> int:
        query = {"columns": columns, "metrics": metrics, "filters": [], "extras": extras, "row_limit": 10}
        context = {
            "datasource": {"id": int(number), "type": kind},
            "queries": [query],
            "result_type": result_type,
            "form_data": {"slice_id": chart["id"]},
        }
        return viewer.post("/api/v1/chart/data", json=context).status_code

    own = {"expressionType": "SQL", "sqlExpression": "max(amount_usd)", "label": "own"}
    assert ask(["source"], ["revenue_usd"]) == 200
    assert ask(["sales_date"], ["revenue_usd"]) == 403
    assert ask(["source"], ["purchase_count"]) == 403
    assert ask(["source"], [own]) == 403
    assert ask(["source"], ["revenue_usd"], where="amount_usd > 5") == 403
    assert ask([], [], result_type="samples") == 403


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
