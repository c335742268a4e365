"""What every command needs: the settings of the platform, and one way to fail."""

import os
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from headrace.settings import read_env_file

ROOT = Path(__file__).resolve().parent.parent
out = Console()
_err = Console(stderr=True, soft_wrap=True, highlight=False)


def settings() -> dict[str, str]:
    """The settings of the platform: of the file named by HEADRACE_ENV_FILE, else of the checkout's .env."""
    return read_env_file(ROOT / os.environ.get("HEADRACE_ENV_FILE", ".env"))


def fail(sentence: str) -> NoReturn:
    """End the command with one line for the user (what was wrong, where, what to do) and status 1."""
    _err.print(f"headrace: {sentence}", markup=False)
    raise typer.Exit(1)


def not_reachable(server: str, address: str) -> NoReturn:
    """End the command because a server does not answer."""
    fail(f"{server} not reachable at {address}: `make up` starts it, `make status` shows its log")
