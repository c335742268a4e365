"""Send simulated visits: `python -m producers.simulate --seed 7 --rate 100 --duration 30`, or `--rate max --events 100000`."""

import argparse
import sys
import time
from itertools import islice

from rich.console import Console
from rich.table import Table

from headrace.settings import use_env_file
from producers.client import MAX_EVENTS, Collector, GaveUp, RequestRefused
from producers.client.settings import ProducerSettings
from producers.simulate.run import Tally, paced, run
from producers.simulate.visits import sessions

PATIENCE = 120.0  # seconds of a collector that cannot take events


def main() -> None:
    """The command. Ends with 0 where the collector replied to each event as it must, else with 1."""
    args = _arguments()
    use_env_file()
    settings = ProducerSettings.load()
    address = args.collector or settings.collector_url

    def connect() -> Collector:
        return Collector(address, settings.write_key.get_secret_value(), patience=PATIENCE, on_wait=_say)

    events = islice(sessions(args.seed, args.bad), args.events)
    begun = time.monotonic()
    try:
        tally = run(paced(events, args.rate, args.duration, args.batch), connect, args.connections)
    except (RequestRefused, GaveUp) as error:
        sys.exit(f"producers.simulate: {error}")
    except KeyboardInterrupt:
        sys.exit("producers.simulate: stopped")
    Console().print(_table(tally, time.monotonic() - begun))
    if not tally.as_expected:
        sys.exit("producers.simulate: the collector did not reply as expected: see the rows that differ")


def _say(why: str, seconds: float) -> None:
    print(f"producers.simulate: waiting {seconds:.1f} s: {why}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m producers.simulate", description="Send simulated visits of a shop as events.")
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same events, which the platform keeps once (7)")
    parser.add_argument("--rate", type=_rate, default=100.0, metavar="R", help="events a second, or max (100)")
    parser.add_argument("--events", type=_count, metavar="N", help="end after N events")
    parser.add_argument("--duration", type=_number, metavar="S", help="end after S seconds")
    parser.add_argument("--bad", type=_share, default=0.01, help="share of events that must be refused (0.01)")
    parser.add_argument("--connections", type=_count, default=4, help="requests at one time (4)")
    parser.add_argument("--batch", type=_count, default=200, help=f"events in one request, at most {MAX_EVENTS} (200)")
    parser.add_argument("--collector", metavar="URL", help="another collector than that of the settings")
    args = parser.parse_args()
    if args.events is None and args.duration is None:
        parser.error("say when to end: --events N or --duration S (or both)")
    if args.batch > MAX_EVENTS:
        parser.error(f"--batch: at most {MAX_EVENTS}")
    return args


def _rate(text: str) -> float | None:
    return None if text == "max" else _number(text)


def _number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share: 0 or more, below 1")
    return value


def _table(tally: Tally, seconds: float) -> Table:
    sent = sum(tally.sent.values())
    types = ", ".join(f"{count:,} {type}" for type, count in tally.sent.most_common())
    table = Table(title=f"{sent:,} events sent in {seconds:.1f} s ({sent / seconds:,.0f}/s)", caption=types)
    for name in ("reply", "expected", "got", ""):
        table.add_column(name, justify="left" if name in ("reply", "") else "right")
    rows = [("accepted", tally.expected_accepted, tally.accepted)]
    reasons = sorted({*tally.expected_rejected, *tally.rejected})
    rows += [(f"rejected: {reason}", tally.expected_rejected[reason], tally.rejected[reason]) for reason in reasons]
    for name, expected, got in rows:
        table.add_row(name, f"{expected:,}", f"{got:,}", "" if expected == got else "differs")
    for reason, count in sorted(tally.later.items()):
        table.add_row(f"accepted, {reason} at the enricher", f"{count:,}", "", "not in the reply")
    return table


if __name__ == "__main__":
    main()
