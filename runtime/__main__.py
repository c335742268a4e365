"""`python -m runtime <command>`: what the Makefile calls."""

import argparse
import contextlib
import os
import signal
import sys

import psutil

from runtime import platform
from runtime.errors import RuntimeFailure


def main() -> int:
    """Run one command. Failures that a person can mend are one message on stderr, and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m runtime", description="The platform as local processes.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="fetch, configure and start everything")
    up.add_argument("--profile", help="core or full; the setting PROFILE where it is not given")
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="what runs")
    logs = commands.add_parser("logs", help="the ends of all logs, or one to follow")
    logs.add_argument("name", nargs="?")
    clean = commands.add_parser("clean", help="stop, and remove all data")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    clean.add_argument("--all", action="store_true", help="what was fetched too")
    second = commands.add_parser("second", help="write HEADRACE_ENV_FILE for one more platform on this machine")
    second.add_argument("--state-dir", required=True)
    second.add_argument("--shift", type=int, required=True, help="what is added to each port")
    second.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="other values for other settings")
    commands.add_parser("lock-jars", help="write runtime/maven/*/sha256.txt anew")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, _interrupted)
    try:
        match given.command:
            case "up":
                platform.up(given.profile or None)
            case "down":
                platform.down()
            case "status":
                return 0 if platform.status() else 1
            case "logs":
                platform.logs(given.name or None)
            case "clean":
                platform.clean(given.yes, given.all)
            case "second":
                platform.second(given.state_dir, given.shift, dict(each.split("=", 1) for each in given.settings))
            case "lock-jars":
                platform.lock_jars()
    except RuntimeFailure as failure:
        for line in str(failure).splitlines():
            print(f"headrace: {line}" if not line.startswith("  ") else line, file=sys.stderr)
        return 1
    return 0


def _interrupted(*_: object) -> None:
    """End at once, with the tools that we have started; waiting for threads that wait for servers would take minutes."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.terminate()
    platform.console.show_cursor()
    print("\nheadrace: interrupted; `make status` shows what runs, `make down` stops it", file=sys.stderr)
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
