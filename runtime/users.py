"""Running a program as another user of the operating system, where we are root and the program refuses that."""

import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.fetching import run


def ensure_user(name: str) -> None:
    """Make a system user without a login where there is none of that name. Raises RuntimeFailure."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], f"making the user {name}")


def as_user(name: str | None, command: Sequence[str]) -> list[str]:
    """`command`, so that it runs as `name` and with nothing of root's; itself where `name` is None."""
    if name is None:
        return list(command)
    return ["setpriv", f"--reuid={name}", f"--regid={pwd.getpwnam(name).pw_gid}", "--clear-groups", "--inh-caps=-all", "--", *command]


def can_enter(name: str, folder: Path) -> bool:
    """Whether `name` can reach `folder`, or where it is to be made, through all the folders above it."""
    above = next(parent for parent in folder.parents if parent.is_dir())
    test = as_user(name, ["test", "-x", str(above)])
    return subprocess.run(test, check=False).returncode == 0


def give_to(name: str, *paths: Path) -> None:
    """Make `name` the owner of these files or folders (not of what is in them)."""
    for path in paths:
        shutil.chown(path, name)
