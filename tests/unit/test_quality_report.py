"""How the report on quality looks."""

from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from dags.report import main
from dags.report.markdown import PARTS, report

AT = datetime(2026, 11, 21, 6, 0, tzinfo=UTC)
NONE: dict[str, Any] = {part.title: [] for part in PARTS}


def test_a_day_without_trouble() -> None:
    assert report(AT, NONE) == (
        "# Quality of the lake, the 24 hours before 2026-11-21 06:00 UTC\n\n"
        "## Expectations that did not hold\n\nAll held.\n\n"
        "## Quarantine\n\nNothing was refused by curation.\n\n"
        "## Dead letters\n\nNothing was rejected.\n\n"
        "## Freshness\n\nNo event came in.\n"
    )


def test_rows_are_a_table_whose_cells_stay_cells() -> None:
    text = report(AT, NONE | {"Quarantine": [["quality", None, 12345, "a | b\nc"], ["row_rejected", "purchase", 1, "x" * 500]]})
    assert "| reason | type | events | such as |\n| --- | --- | --- | --- |\n| quality |  | 12,345 | a \\| b c |\n" in text
    assert f"| row_rejected | purchase | 1 | {'x' * 119}… |\n" in text


def test_what_could_not_be_asked_is_said() -> None:
    text = report(AT, NONE | {"Freshness": "line 1:1: Table 'lake.silver.events' does not exist"})
    assert "## Freshness\n\nCould not be asked: line 1:1: Table 'lake.silver.events' does not exist\n" in text


def test_every_part_asks_for_its_columns() -> None:
    """The text of a part's SELECT list has as many columns as the table that it becomes."""
    for part in PARTS:
        listed, depth = 1, 0
        for letter in part.sql.partition("SELECT ")[2].partition("FROM")[0]:
            depth += (letter == "(") - (letter == ")")
            listed += letter == "," and depth == 0
        assert listed == len(part.columns), part.title


def test_without_trino_there_is_none_today(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def away(*_: object) -> None:
        raise requests.ConnectionError("connection refused")

    monkeypatch.setattr(main, "connection", away)
    for name, value in {"TRINO_URL": "http://127.0.0.1:1", "TRINO_USER": "x", "STATE_DIR": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == main.SKIPPED
    assert "report: none today: Trino at http://127.0.0.1:1: connection refused" in capsys.readouterr().out
