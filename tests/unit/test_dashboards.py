"""The dashboards' files fit together, and are sent only with settings that there are."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime import dashboards
from runtime.envfile import resolved, with_secrets
from runtime.errors import RuntimeFailure

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "dashboards"
_GRID = 12  # columns


def _all(kind: str) -> dict[str, dict[str, Any]]:
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted((FOLDER / kind).glob("*.yaml"))}


DATABASES, DATASETS, CHARTS, DASHBOARDS = (_all(kind) for kind in ("databases", "datasets", "charts", "dashboards"))
_DATASET_OF = {dataset["uuid"]: dataset for dataset in DATASETS.values()}


def _cells(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in dashboard["position"].values() if isinstance(item, dict) and item["type"] == "CHART"]


def test_the_two_dashboards_are_there() -> None:
    assert {d["slug"]: d["dashboard_title"] for d in DASHBOARDS.values()} == {"sales": "Sales", "live-events": "Live events"}


def test_no_two_things_have_one_uuid() -> None:
    uuids = [thing["uuid"] for things in (DATABASES, DATASETS, CHARTS, DASHBOARDS) for thing in things.values()]
    assert len(uuids) == len(set(uuids))


def test_every_data_set_stands_on_a_database() -> None:
    assert {d["database_uuid"] for d in DATASETS.values()} == {d["uuid"] for d in DATABASES.values()}


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_chart_asks_only_for_what_its_data_set_has(name: str) -> None:
    chart = CHARTS[name]
    dataset = _DATASET_OF[chart["dataset_uuid"]]
    columns = {column["column_name"] for column in dataset["columns"]}
    metrics = {metric["metric_name"] for metric in dataset["metrics"]}
    params = chart["params"]
    asked_metrics = {*params.get("metrics", []), *([params["metric"]] if "metric" in params else [])}
    asked_columns = {*params.get("groupby", []), *params.get("all_columns", []), *([params["x_axis"]] if "x_axis" in params else [])}
    asked_columns |= {condition["subject"] for condition in params["adhoc_filters"]}
    assert asked_metrics | asked_columns
    assert asked_metrics <= metrics
    assert asked_columns <= columns
    assert params["viz_type"] == chart["viz_type"]


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_dashboard_s_rows_are_full_and_hold_charts_that_there_are(name: str) -> None:
    position = DASHBOARDS[name]["position"]
    titles = {chart["uuid"]: chart["slice_name"] for chart in CHARTS.values()}
    assert {cell["meta"]["uuid"]: cell["meta"]["sliceName"] for cell in _cells(DASHBOARDS[name])}.items() <= titles.items()
    for row in position["GRID_ID"]["children"]:
        assert sum(position[cell]["meta"]["width"] for cell in position[row]["children"]) == _GRID


def test_every_chart_stands_on_one_dashboard() -> None:
    shown = [cell["meta"]["uuid"] for dashboard in DASHBOARDS.values() for cell in _cells(dashboard)]
    assert sorted(shown) == sorted(chart["uuid"] for chart in CHARTS.values())


def test_addresses_come_from_the_settings() -> None:
    env = resolved(with_secrets((ROOT / ".env.example").read_text())) | {"TRINO_PORT": "18085", "TRINO_USER": "somebody"}
    files = dashboards.assets(FOLDER, env)
    addresses = {yaml.safe_load(text)["sqlalchemy_uri"] for name, text in files.items() if name.startswith("databases/")}
    assert addresses == {"trino://somebody@127.0.0.1:18085/lake", "trino://somebody@127.0.0.1:18085/elasticsearch"}


def test_a_setting_that_there_is_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("version: ${NO_SUCH_SETTING}\n")
    with pytest.raises(RuntimeFailure, match="NO_SUCH_SETTING"):
        dashboards.assets(tmp_path, {})


def test_the_archive_has_one_folder_with_every_file() -> None:
    files = {"metadata.yaml": "type: assets\n", "charts/a.yaml": "slice_name: A\n"}
    with zipfile.ZipFile(io.BytesIO(dashboards.archive(files))) as bundle:
        assert {name: bundle.read(name).decode() for name in bundle.namelist()} == {
            f"headrace/{name}": text for name, text in files.items()
        }
