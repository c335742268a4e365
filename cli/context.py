"""What every command needs: the settings of the platform, and one way to fail."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from headrace.settings import read_env_file

ROOT = Path(__file__).resolve().parent.parent
out = Console(width=None if sys.stdout.isatty() else 10_000)  # a pipe or a file has no width: one row, one line
err = Console(stderr=True, soft_wrap=True, highlight=False)


class _Env(dict[str, str]):
    def __missing__(self, name: str) -> str:
        where = _env_file() if os.environ.get("HEADRACE_ENV_FILE") != "" else "the environment"
        sys.exit(f"headrace: no setting {name} in {where}: compare it with .env.example")


def _env_file() -> Path:
    return ROOT / os.environ.get("HEADRACE_ENV_FILE", ".env")


def settings() -> dict[str, str]:
    """The platform's settings, of the file named by HEADRACE_ENV_FILE, else of .env. Asking for one that is not there ends the command.

    Where HEADRACE_ENV_FILE is there and empty, as in a container, they are the environment's.
    """
    if os.environ.get("HEADRACE_ENV_FILE") == "":
        return _Env(os.environ)
    return _Env(read_env_file(_env_file()))


def fail(sentence: str) -> NoReturn:
    """End the command with one line for the user (what was wrong, where, what to do) and status 1."""
    err.print(f"headrace: {sentence}", markup=False)
    raise typer.Exit(1)


def not_reachable(server: str, address: str) -> NoReturn:
    """End the command because a server does not answer."""
    fail(f"{server} not reachable at {address}: `make up` starts it, `make status` shows its log")
