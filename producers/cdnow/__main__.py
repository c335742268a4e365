"""Replay the CDNOW purchases: `python -m producers.cdnow [--speed gentle|max|50|7days] [--limit N] [--restart]`."""

import argparse
import sys
from pathlib import Path

from headrace.observability import set_up_logging
from headrace.settings import use_env_file
from producers.cdnow.pace import NoSpeed, pace
from producers.cdnow.position import Position
from producers.cdnow.purchases import BadData, read_purchases
from producers.cdnow.replay import RealClock, replay
from producers.cdnow.report import report
from producers.cdnow.settings import ReplaySettings
from producers.client import Collector, GaveUp, Reply, RequestRefused

DATA = Path(".runtime/data/cdnow/CDNOW_master.txt")
SHOWN = 10  # rejected events that are named one by one


def main() -> None:
    """The command. Ends with 0 once everything is sent, with 1 and one line where that cannot be."""
    args = _arguments()
    use_env_file()
    settings = ReplaySettings.load()
    set_up_logging("cdnow-replay", settings.log_level, settings.log_format)
    try:
        _run(args, settings)
    except (BadData, RequestRefused, GaveUp, NoSpeed) as error:
        sys.exit(f"producers.cdnow: {error}")
    except KeyboardInterrupt:
        sys.exit("producers.cdnow: stopped; the next start goes on from here")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m producers.cdnow", description="Replay the CDNOW purchases as events.")
    parser.add_argument("--speed", default="gentle", help="gentle (20 events/s), max, events a second (50), or days a second (7days)")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N events, wherever CDNOW_REPLAY_EVENTS would end it")
    parser.add_argument("--restart", action="store_true", help="begin with the first purchase, wherever the last replay ended")
    parser.add_argument("--data", type=Path, default=DATA, help=f"the file of purchases ({DATA})")
    parser.add_argument("--collector", metavar="URL", help="another collector than that of the settings")
    args = parser.parse_args()
    if args.limit is not None and args.limit < 1:
        parser.error("--limit: at least 1")
    return args


def _run(args: argparse.Namespace, settings: ReplaySettings) -> None:
    purchases = read_purchases(args.data)
    place = Position(settings.state_dir / "data" / "cdnow-replay", args.data)
    first = 0 if args.restart else min(place.read(), len(purchases))
    wanted = max(first, settings.events) if args.limit is None else first + args.limit
    end = min(wanted, len(purchases))
    due = pace(args.speed, purchases, first)
    shown = 0
    with report(len(purchases), first) as show:

        def on_wait(why: str, seconds: float) -> None:
            show.said("waiting for the collector", why=why, seconds=round(seconds, 1))

        def sent(position: int, reply: Reply) -> None:
            nonlocal shown
            place.write(position)
            show.moved(position, purchases[position - 1].day.isoformat())
            for one in reply.rejected[: max(0, SHOWN - shown)]:
                shown += 1
                show.said("rejected", id=one.id, reason=one.reason, detail=one.detail)

        address = args.collector or settings.collector_url
        with Collector(address, settings.write_key.get_secret_value(), on_wait=on_wait) as collector:
            rejected = replay(purchases, range(first, end), due, collector=collector, sent=sent, clock=RealClock())
        show.said("done", sent=end - first, rejected=dict(rejected), position=end, of=len(purchases))


if __name__ == "__main__":
    main()
