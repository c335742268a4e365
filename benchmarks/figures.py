"""What a measurement found: shown, and kept in benchmarks/results/<name>.json (flat keys, units in the names)."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

_RESULTS = Path(__file__).resolve().parent / "results"


def keep(name: str, figures: Mapping[str, float]) -> None:
    """Write them, in the place of those before."""
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=2) + "\n")


def show(figures: Mapping[str, float]) -> None:
    """Print them as a table."""
    table = Table("figure", "value")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:,}")
    Console().print(table)
