"""The demo on the running platform: everything that was sent is accounted for, once; also while services are killed."""

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime.component import Place
from tests.e2e.conftest import ROOT, SERVICES, eventually, headrace, pid_of, run

pytestmark = pytest.mark.usefixtures("platform")


def by_station(report: Path) -> dict[str, list[dict[str, Any]]]:
    stations: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(report.read_text()):
        stations.setdefault(row["station"], []).append(row)
    return stations


def restarted(place: Place, name: str, before: int) -> bool:
    return pid_of(place, name) not in (0, before)


@pytest.mark.timeout(900)
def test_everything_sent_is_accounted_for_once(tmp_path: Path) -> None:
    report = tmp_path / "demo.json"
    done = run(headrace("demo", "--purchases", "500", "--within", "400", "--report", str(report)))
    assert done.returncode == 0, done.stdout
    found = by_station(report)
    assert found["silver.purchase"][0]["found"] == "501", "the 500 real purchases and that of the visit"
    assert found["gold.fact_purchase"][0]["found"] == "501"
    assert found["silver.quarantine"][0]["found"] == "1", "the one with a known id and other content"
    assert found["dead-letter.enricher"][0]["found"] == "schema_invalid 3"
    assert found["dead-letter.collector"][0]["found"] == (
        "invalid_attribute 1, missing_attribute 2, too_large 1, unknown_schema 1, unknown_type 1, unparseable 1"
    )
    assert found["dead-letter.loader"][0]["found"] == "none"


@pytest.mark.timeout(900)
def test_it_balances_although_each_service_is_killed_once(tmp_path: Path, place: Place) -> None:
    report = tmp_path / "demo.json"
    command = headrace("demo", "--purchases", "3000", "--within", "400", "--report", str(report))
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        for name in SERVICES:
            before = pid_of(place, name)
            os.kill(before, signal.SIGKILL)
            time.sleep(1)
            assert eventually(partial(restarted, place, name, before)), f"{name} is running again"
        output, _ = demo.communicate(timeout=800)
    assert demo.returncode == 0, output
    found = by_station(report)
    assert found["silver.purchase"][0]["found"] == "3001"
    assert found["gold.fact_purchase"][0]["found"] == "3001"
