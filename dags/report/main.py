"""What the last day was like: `python -m dags.report.main`. Prints the report, and writes it to STATE_DIR/data/reports/quality-DAY.md.

It fails softly. A part that cannot be asked (no such table yet) says so in the report; where Trino does not answer at all, the process ends
with SKIPPED, which Airflow shows as a task that was skipped.
"""

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from trino.exceptions import Error, TrinoQueryError

from dags.report.markdown import PARTS, Rows, report
from headrace.trino import connection

SKIPPED = 99  # Airflow's default for the exit code of a skipped task


def ask(cursor: Any) -> dict[str, Rows | str]:
    """The rows of each part by its title, or why there are none to be had. Raises Error or RequestException where Trino is away."""
    found: dict[str, Rows | str] = {}
    for part in PARTS:
        try:
            cursor.execute(part.sql)
            found[part.title] = cursor.fetchall()
        except TrinoQueryError as error:
            found[part.title] = error.message
    return found


def write(text: str, at: datetime, env: Mapping[str, str]) -> Path:
    """Put the report into the folder of reports, over an earlier one of that day."""
    path = Path(env["STATE_DIR"], "data", "reports", f"quality-{at:%Y-%m-%d}.md")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def main() -> None:
    """One report, with the settings of the environment."""
    env, at = os.environ, datetime.now(UTC)
    if missing := [name for name in ("TRINO_URL", "TRINO_USER", "STATE_DIR") if not env.get(name)]:
        sys.exit(f"report: not set: {', '.join(missing)} (see .env.example; `make up` passes all of them to Airflow)")
    try:
        with connection(env, "report") as opened:
            text = report(at, ask(opened.cursor()))
    except (Error, requests.RequestException) as error:
        print(f"report: none today: Trino at {env['TRINO_URL']}: {' '.join(str(error).split())}")
        sys.exit(SKIPPED)
    print(text)
    try:
        print(f"report: also in {write(text, at, env)}")
    except OSError as error:
        print(f"report: not kept as a file: {error}")


if __name__ == "__main__":
    main()
