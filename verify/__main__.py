"""`python -m verify`: what `make verify` calls."""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from runtime.errors import RuntimeFailure
from runtime.platform import env_path, place_at
from verify import report
from verify.run import Wanted, folder_of, verify
from verify.site import prepared

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "verify.json"


def main() -> int:
    """Exit code 0 where everything that was sent is accounted for, and the run proves something."""
    parser = argparse.ArgumentParser(prog="python -m verify", description="Send, harm, heal, and account for every event.")
    parser.add_argument("--faults", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--acks", type=int, default=20_000, help="acknowledged events, at least")
    parser.add_argument("--rate", type=float, default=400, help="events offered a second")
    parser.add_argument("--lanes", type=int, default=5, help="faults at a time, at most; 1: the recovery of each is that of it alone")
    parser.add_argument("--minutes", type=float, default=240, help="of load at most")
    parser.add_argument("--only", default="", help="kinds of fault, with commas between")
    parser.add_argument("--short", action="store_true", help="faults are brief")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    only = tuple(given.only.split(",")) if given.only else None
    wanted = Wanted(given.seed, given.faults, given.acks, given.rate, given.lanes, given.minutes * 60, given.short, only)
    try:
        place = place_at(env_path())
        with prepared(place, folder_of(place)) as (site, disk):
            account = verify(site, disk, wanted, console)
    except RuntimeFailure as failure:
        print(f"headrace: {failure}", file=sys.stderr)
        return 1
    if only is None:
        report.write(RESULTS, account.figures)
    if account.problems:
        console.print("This is not a proof.", style="red")
        return 1
    console.print("Nothing lost, nothing doubled.", style="green")
    return 0


if __name__ == "__main__":
    sys.exit(main())
