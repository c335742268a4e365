"""The dashboards' files fit together, and are sent only with settings that there are."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from dags.runs import columns
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


def test_the_dashboards_are_there() -> None:
    assert {d["slug"]: d["dashboard_title"] for d in DASHBOARDS.values()} == {
        "sales": "Sales",
        "live-events": "Live events",
        "quality": "Data quality and dead letters",
        "pipeline": "Pipeline",
        "models": "Models",
    }


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
    groups = params.get("groupby", [])  # of a heat map it is one
    asked_columns = {*([groups] if isinstance(groups, str) else groups), *params.get("all_columns", [])}
    asked_columns |= {params["x_axis"]} if "x_axis" in params else set()
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


@pytest.mark.parametrize("name", sorted(DASHBOARDS))
def test_a_filter_has_a_column_and_reaches_a_chart(name: str) -> None:
    cells = {cell["meta"]["chartId"]: CHARTS[cell["id"].removeprefix("CHART-")] for cell in _cells(DASHBOARDS[name])}
    for of in DASHBOARDS[name]["metadata"]["native_filter_configuration"]:
        excluded = of["scope"]["excluded"]
        assert set(excluded) <= cells.keys(), of["name"]
        reached = [chart for number, chart in cells.items() if number not in excluded]
        if of["filterType"] == "filter_time":  # Superset puts its span into a filter by time, where the chart has one
            assert all(any(f["operator"] == "TEMPORAL_RANGE" for f in chart["params"]["adhoc_filters"]) for chart in reached), of["name"]
            continue
        [target] = of["targets"]
        column = target["column"]["name"]
        assert column in {each["column_name"] for each in _DATASET_OF[target["datasetUuid"]]["columns"]}
        assert any(column in {each["column_name"] for each in _DATASET_OF[chart["dataset_uuid"]]["columns"]} for chart in reached)


def test_no_two_charts_have_one_number() -> None:
    numbers = [cell["meta"]["chartId"] for dashboard in DASHBOARDS.values() for cell in _cells(dashboard)]
    assert len(numbers) == len(set(numbers))


def test_runs_are_shown_by_the_columns_that_they_have() -> None:
    assert [each["column_name"] for each in DATASETS["runs"]["columns"]] == [column.split()[0] for column in columns("trino").split(", ")]


def test_every_chart_stands_on_one_dashboard() -> None:
    shown = [cell["meta"]["uuid"] for dashboard in DASHBOARDS.values() for cell in _cells(dashboard)]
    assert sorted(shown) == sorted(chart["uuid"] for chart in CHARTS.values())


def test_addresses_come_from_the_settings() -> None:
    env = resolved(with_secrets((ROOT / ".env.example").read_text())) | {"SUPERSET_TRINO_URL": "trino://superset:secret@trino:443"}
    files = dashboards.assets(FOLDER, env)
    addresses = {yaml.safe_load(text)["sqlalchemy_uri"] for name, text in files.items() if name.startswith("databases/")}
    assert addresses == {"trino://superset:secret@trino:443/lake", "trino://superset:secret@trino:443/elasticsearch"}


def test_an_option_is_imported_where_it_is_asked_for() -> None:
    env = resolved(with_secrets((ROOT / ".env.example").read_text()))
    plain, more = dashboards.assets(FOLDER, env), dashboards.assets(FOLDER, {**env, "SUPERSET_OPTIONS": "elasticsearch_sql"})
    [(name, text)] = more.items() - plain.items()
    assert (name, yaml.safe_load(text)["sqlalchemy_uri"]) == ("databases/headrace_search.yaml", "elasticsearch+http://127.0.0.1:9200/")
    with pytest.raises(RuntimeFailure, match="no option 'nonsense': there are elasticsearch_sql"):
        dashboards.assets(FOLDER, {**env, "SUPERSET_OPTIONS": "nonsense"})


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
