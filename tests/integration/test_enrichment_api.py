"""The enrichment API on the real lake: it sees a new snapshot of customer_features, and outlives the lake's absence."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import pytest

from enrichment_api.refresh import Refresher
from enrichment_api.settings import Settings
from enrichment_api.train import train
from headrace.lake import load_catalog
from tests.unit.test_train import write_purchases
from verify.ports import free_port

pytestmark = pytest.mark.usefixtures("servers")

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

FIRST, LAST = datetime(1997, 1, 1, tzinfo=UTC), datetime(1997, 5, 1, tzinfo=UTC)
KEY = ("cdnow", "00001")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ENRICHMENT_API_MODEL_DIR", str(tmp_path / "model"))
    return Settings.load()


@pytest.fixture
def table(settings: Settings) -> Iterator[tuple[str, str]]:
    """A name for a table of this test alone; what stands there is dropped afterwards."""
    catalog, name = load_catalog(settings), ("test_" + uuid.uuid4().hex[:12], "customer_features")
    catalog.create_namespace(name[0])
    yield name
    if catalog.table_exists(name):
        catalog.purge_table(name)
    catalog.drop_namespace(name[0])


def _rows(*customers: tuple[str, str], frequency: int = 3) -> pa.Table:
    """Rows as dbt writes them."""
    moment = pa.timestamp("us", "UTC")
    schema = pa.schema(
        [
            ("source", pa.string()),
            ("customer_id", pa.string()),
            ("first_purchase_at", moment),
            ("last_purchase_at", moment),
            ("frequency", pa.int64()),
            ("quantity_total", pa.int64()),
            ("monetary_total_usd", pa.decimal128(18, 2)),
            ("monetary_mean_usd", pa.float64()),
            ("updated_at", moment),
        ]
    )
    columns: dict[str, Any] = {
        "source": [source for source, _ in customers],
        "customer_id": [customer for _, customer in customers],
        "first_purchase_at": [FIRST for _ in customers],
        "last_purchase_at": [LAST for _ in customers],
        "frequency": [frequency for _ in customers],
        "quantity_total": [7 for _ in customers],
        "monetary_total_usd": pa.array(["59.97" for _ in customers]).cast(pa.decimal128(18, 2)),
        "monetary_mean_usd": [19.99 for _ in customers],
        "updated_at": [LAST for _ in customers],
    }
    return pa.table(columns, schema=schema)


def _replace(catalog: "Catalog", name: tuple[str, str], rows: pa.Table) -> None:
    """As dbt does it: the table goes, and another one comes in its place."""
    if catalog.table_exists(name):
        catalog.purge_table(name)
    catalog.create_table(name, schema=rows.schema).append(rows)


def test_each_new_snapshot_is_seen(settings: Settings, table: tuple[str, str]) -> None:
    catalog, refresher = load_catalog(settings), Refresher(lambda: load_catalog(settings), 15, table)
    refresher.look()
    assert len(refresher.customers) == 0  # the table is not there yet
    _replace(catalog, table, _rows(KEY))
    refresher.look()
    state = refresher.customers.states([KEY, ("cdnow", "99999"), ("shop", "00001")])
    assert state["frequency"].tolist() == [3, 0, 0]
    assert state[0].item() == (FIRST.replace(tzinfo=None), LAST.replace(tzinfo=None), 3.0, 7.0, 59.97)
    before = refresher.customers
    refresher.look()
    assert refresher.customers is before  # nothing new: nothing is read
    catalog.load_table(table).append(_rows(("shop", "00001"), frequency=5))
    refresher.look()
    assert refresher.customers.states([KEY, ("shop", "00001")])["frequency"].tolist() == [3, 5]
    _replace(catalog, table, _rows(KEY, frequency=9))
    refresher.look()
    assert refresher.customers.states([KEY, ("shop", "00001")])["frequency"].tolist() == [9, 0]
    catalog.drop_table(table)
    refresher.look()
    assert len(refresher.customers) == 0


def test_states_stay_while_the_lake_is_away_and_are_read_again_after(settings: Settings, table: tuple[str, str]) -> None:
    catalog = load_catalog(settings)
    _replace(catalog, table, _rows(KEY))
    away = settings.model_copy(update={"catalog_url": "postgresql://nobody:x@127.0.0.1:1/lake"})
    where = [settings]
    refresher = Refresher(lambda: load_catalog(where[0]), 15, table)
    refresher.look()
    where[0] = away
    refresher._catalog = None  # the connection is lost
    refresher.look()
    assert refresher.customers.states([KEY])["frequency"].tolist() == [3]
    catalog.load_table(table).append(_rows(("shop", "00001")))
    where[0] = settings
    refresher.look()
    assert len(refresher.customers) == 2


@pytest.mark.parametrize("lake", ["there", "away"])
def test_the_service_scores_whether_or_not_the_lake_is_there(tmp_path: Path, lake: str) -> None:
    port, folder = free_port(), tmp_path / "model"
    card = train(write_purchases(tmp_path / "purchases.txt"), folder)
    env = {**os.environ, "ENRICHMENT_API_PORT": str(port), "ENRICHMENT_API_MODEL_DIR": str(folder)}
    if lake == "away":
        env["LAKE_CATALOG_URL"] = "postgresql://nobody:x@127.0.0.1:1/lake"
    log = tmp_path / "log"
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-m", "enrichment_api.main"], env=env, stderr=stream)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as api:
            _wait(api, process)
            event = {"id": "1", "source": f"s-{uuid.uuid4()}", "type": "purchase", "time": "1997-06-01T00:00:00Z", "subject": "00001"}
            response = api.post("/v1/score", json={"events": [event | {"data": {"quantity": 1, "amount_usd": 9.99}}] * 1000})
            answers = response.json()["enrichments"]
            assert len(answers) == 1000
            assert {answer["repurchase"]["features"] for answer in answers} == {"new"}
            assert {answer["repurchase"]["version"] for answer in answers} == {card.version}
            if lake == "away":
                while '"customer features unavailable"' not in log.read_text():
                    time.sleep(0.1)
                assert "enrichment_api_customer_features_available 0.0" in api.get("/metrics").text
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)
    assert "Traceback" not in log.read_text()


def _wait(api: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    while process.poll() is None:
        try:
            if api.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the service ended before it was ready")


def test_without_a_model_the_service_says_what_to_do(tmp_path: Path) -> None:
    env = {**os.environ, "ENRICHMENT_API_MODEL_DIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-m", "enrichment_api.main"], env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "no model (No such file or directory): `python -m enrichment_api.train` makes one" in ended.stderr
    assert "Traceback" not in ended.stderr
