"""`python -m verify`: what `make verify` and `make verify-controls` call.

It harms a platform of its own beside the user's, which it starts, or the running one that HEADRACE_ENV_FILE names.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import stamina
from rich.console import Console

from runtime.component import Place
from runtime.errors import RuntimeFailure
from runtime.platform import ROOT, env_path, place_at
from runtime.supervisor import Supervisor
from verify import plan, report
from verify.controls import CONTROLS
from verify.run import Wanted, control, folder_of, verify
from verify.site import Site, forget_disk, prepared

RESULTS = ROOT / "benchmarks" / "results" / "verify.json"
_OWN = Path(".runtime/verify")
_OWN_SHIFT = "4000"
_NO_PART_IN_IT = ("cdnow-replay", "shop", "superset")


def main() -> int:
    """Exit code 0 where everything that was sent is accounted for and the run proves something, or where every mistake was noticed."""
    given = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    stamina.instrumentation.set_on_retry_hooks([])  # what is tried again is said by what comes of it
    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        with _platform() as place, prepared(place, folder_of(place), console.print) as (site, disk):
            if given.command == "controls":
                return 0 if _controls(site, given, console) else 1
            account = verify(site, disk, _wanted(given), console)
    except RuntimeFailure as failure:
        print(f"headrace: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("headrace: interrupted; everything was put back", file=sys.stderr)
        return 130
    if not (given.only or given.short):
        report.write(RESULTS, account.figures)
    if account.problems:
        console.print("This proves nothing, or the contrary: see above.", style="red")
    else:
        console.print("Nothing lost, nothing doubled.", style="green")
    return 1 if account.problems else 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _controls(site: Site, given: argparse.Namespace, console: Console) -> bool:
    """Whether every mistake is noticed. Each is told of at once."""
    results = []
    for each in CONTROLS:
        if not given.only or each.mutant in given.only.split(","):
            noticed, said = control(site, each, given.seed, console)
            console.print(f"{each.mutant}: {'noticed' if noticed else 'NOT NOTICED'} ({said})", style="green" if noticed else "red")
            results.append(noticed)
    return all(results)


def _wanted(given: argparse.Namespace) -> Wanted:
    only = tuple(given.only.split(",")) if given.only else None
    return Wanted(
        given.seed, 0 if given.short else given.faults, given.acks, given.rate, given.lanes, given.minutes * 60, given.short, only
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verify", description="Send, harm, heal, and account for every event.")
    parser.add_argument("command", nargs="?", choices=("run", "controls"), default="run")
    parser.add_argument("--faults", type=int, default=60, help="at least one of each kind is needed for a proof")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--acks", type=int, default=20_000, help="acknowledged events, at least")
    parser.add_argument("--rate", type=float, default=400, help="events offered a second")
    parser.add_argument("--lanes", type=int, default=5, help="faults at a time, at most; with 1 the recovery of each is that of it alone")
    parser.add_argument("--minutes", type=float, default=240, help="of load, at most")
    parser.add_argument("--only", default="", help="kinds of fault, or controls, with commas between")
    parser.add_argument("--short", action="store_true", help="each kind of fault once, and briefly; the figures are not kept")
    return parser.parse_args()


@contextmanager
def _platform() -> Iterator[Place]:
    """The one that HEADRACE_ENV_FILE names, as it runs; else one of our own, from nothing (KEEP=1 leaves it running)."""
    if "HEADRACE_ENV_FILE" in os.environ:
        place = place_at(env_path())
        states = Supervisor(place).states()
        running = [name for name in _NO_PART_IN_IT if name in states and states[name].state == "RUNNING"]
        with ExitStack() as held:
            for name in running:
                held.callback(Supervisor(place).start, name)
                Supervisor(place).stop(name)
            yield place
        return
    os.environ["HEADRACE_ENV_FILE"] = str(_OWN / ".env")
    if env_path().is_file():
        _runtime("down")
        forget_disk(place_at(env_path()))
        _runtime("clean", "--yes")
        env_path().unlink()
    plan.write(ROOT / "schemas", ROOT / _OWN / "schemas")
    settings = (f"SCHEMAS_DIR={_OWN / 'schemas'}", "CURATION_SCHEDULE=")
    try:
        _runtime("second", "--state-dir", str(_OWN / "state"), "--shift", _OWN_SHIFT, *settings)
        _runtime("up")
        place = place_at(env_path())
        for name in _NO_PART_IN_IT:
            Supervisor(place).stop(name)
        yield place
    finally:
        if os.environ.get("KEEP") != "1":
            _runtime("down")


def _runtime(*command: str) -> None:
    if subprocess.run([sys.executable, "-m", "runtime", *command], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode:
        raise RuntimeFailure(f"python -m runtime {command[0]} failed")


if __name__ == "__main__":
    sys.exit(main())
