"""What a report on the lake's quality asks Trino, and how it looks. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Part:
    """One table of the report. `none`: what is said where there are no rows."""

    title: str
    columns: tuple[str, ...]
    none: str
    sql: str


# A day back from the moment of the question.
_DAY = "current_timestamp - INTERVAL '1' DAY"
PARTS = (
    Part(
        "Expectations that did not hold",
        ("type", "expectation", "level", "runs", "failed at most", "of", "last run"),
        "All held.",
        f"""SELECT type, expectation, max_by(level, at), count(*), max(failed), max_by(checked, failed), max(at)
        FROM lake.gold.quality_results WHERE at > {_DAY} AND failed > 0 GROUP BY type, expectation ORDER BY 3, 1, 2""",
    ),
    Part(
        "Quarantine",
        ("reason", "type", "events", "such as"),
        "Nothing was refused by curation.",
        f"""SELECT reason, type, count(*), max_by(detail, received_at)
        FROM lake.silver.quarantine WHERE received_at > {_DAY} GROUP BY reason, type ORDER BY 3 DESC, 1, 2""",
    ),
    Part(
        "Dead letters",
        ("service", "reason", "type", "letters", "such as"),
        "Nothing was rejected.",
        f"""SELECT service, reason, type, count(*), max_by(detail, rejected_at)
        FROM lake.bronze.dead_letters WHERE rejected_at > {_DAY} GROUP BY service, reason, type ORDER BY 4 DESC, 1, 2, 3""",
    ),
    Part(
        "Freshness",
        ("type", "events", "late", "newest received at", "minutes since"),
        "No event came in.",
        f"""SELECT type, count(*), count_if(time < received_at - INTERVAL '1' HOUR), max(received_at),
            date_diff('minute', max(received_at), current_timestamp)
        FROM lake.silver.events WHERE received_at > {_DAY} GROUP BY type ORDER BY 5 DESC, 1""",
    ),
)
_WIDEST = 120  # characters of a cell


def report(at: datetime, found: Mapping[str, Rows | str]) -> str:
    """The report as Markdown. `found`: by the title of a part its rows, or why there are none to be had."""
    lines = [f"# Quality of the lake, the 24 hours before {at:%Y-%m-%d %H:%M} UTC", ""]
    for part in PARTS:
        rows = found[part.title]
        lines += [f"## {part.title}", ""]
        if isinstance(rows, str):
            lines += [f"Could not be asked: {_cell(rows)}", ""]
        elif not rows:
            lines += [part.none, ""]
        else:
            table = [part.columns, ("---",) * len(part.columns), *rows]
            lines += [*(f"| {' | '.join(map(_cell, row))} |" for row in table), ""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, int):
        return f"{value:,}"
    text = " ".join(str(value).split()).replace("|", "\\|")
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
