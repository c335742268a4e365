"""Months of a shop in a file: `python -m producers.simulate.history FILE --visits 30000 --days 98`, a CloudEvent in each line.

For trying out what needs a past (the scenario `recommender`), which no sending of today's events has.
"""

import argparse
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from headrace.event import rfc3339
from producers.simulate.visits import history


def write(file: Path, seed: int, visits: int, begins: datetime, days: float) -> int:
    """Write the events, as a whole or not at all, and give their number. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    events = history(seed, visits, days * 86_400)
    with fresh.open("wb") as lines:
        lines.writelines(event.text(rfc3339(begins + timedelta(seconds=second))) + b"\n" for second, event in events)
    fresh.replace(file)
    return len(events)


def main() -> None:
    """The command. Ends with 1 where the file cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m producers.simulate.history", description="Write months of simulated visits to a file.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same events (7)")
    parser.add_argument("--visits", type=int, default=30_000, help="visits in all (30,000, which are 220,000 events)")
    parser.add_argument("--days", type=int, default=98, help="over so many days (98)")
    parser.add_argument("--begins", type=_day, default=datetime(2026, 1, 5, tzinfo=UTC), help="the first day, UTC (2026-01-05, a Monday)")
    args = parser.parse_args()
    if args.visits < 1 or args.days < 1:
        parser.error("--visits and --days: at least 1")
    try:
        count = write(args.file, args.seed, args.visits, args.begins, args.days)
    except OSError as error:
        sys.exit(f"producers.simulate.history: {args.file}: {error.strerror}")
    print(f"{count:,} events of {args.visits:,} visits in {args.days} days: {args.file}")


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no day (2026-01-05)") from None


if __name__ == "__main__":
    main()
