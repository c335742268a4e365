"""What a person can do with a platform: up, down, status, logs, clean."""

import os
import shutil
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from rich.console import Console

from runtime import envfile, preflight, processes, tables
from runtime.catalog import components, programs_of
from runtime.component import Component, Place
from runtime.errors import RuntimeFailure
from runtime.fetching import alone, digest_of
from runtime.maven import write_lock
from runtime.ordering import check
from runtime.progress import Report, reporting
from runtime.remembered import recall, remember, stop_order
from runtime.servers.postgres import copy_of
from runtime.starting import start_all
from runtime.supervisor import Supervisor, log_path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / ".env.example"
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def env_path() -> Path:
    """The .env file of the platform that this command is about."""
    return (ROOT / os.environ.get("HEADRACE_ENV_FILE", ".env")).resolve()


def place_at(path: Path) -> Place:
    """The platform of an .env file. STATE_DIR may be relative to the checkout."""
    return Place(root=ROOT, env=envfile.read(path))


def up(profile: str | None = None) -> None:
    """Fetch, configure and start everything, and show it. A second time it mends what is not as it should be."""
    path = env_path()
    fresh = not path.is_file()
    added = envfile.ensure_env_file(path, EXAMPLE)
    if fresh:
        console.print(f"Wrote {_short(path)} with random secrets.")
    elif added:
        console.print(f"Added to {_short(path)}: {', '.join(added)}.")
    place = place_at(path)
    profile = profile or place.env["PROFILE"]
    parts = components(profile, place.env)
    preflight.ensure_packages([package for part in parts for package in part.apt], console.print)
    place.state.mkdir(parents=True, exist_ok=True)
    with alone(place.state / ".lock"):
        _up(place, profile, parts)


def _up(place: Place, profile: str, parts: list[Component]) -> None:
    supervisor = Supervisor(place)
    problems = preflight.port_problems(place.env, [program for _, program in programs_of(parts, place)], place.state)
    problems += preflight.disk_problems(ROOT, shutil.disk_usage(ROOT).free, _disk_needed(place, profile))
    if not supervisor.running():
        problems += preflight.memory_problems(profile, psutil.virtual_memory().available)
    preflight.refuse(problems)
    fetch(place, parts)
    sums = _configure(place, parts)
    owned = programs_of(parts, place)
    programs = [program for _, program in owned]
    check(programs)
    remember(place, programs)
    supervisor.ensure(programs)
    with reporting(console) as report:
        start_all(place, programs, {program.name: sums[part.name] for part, program in owned}, report)
    console.print(tables.running(place, programs))


def _fetch(part: Component, place: Place, report: Report) -> Exception | None:
    told: list[str] = []

    def say(what: str) -> None:
        told.append(what)
        report(part.name, what)

    try:
        part.fetch(place, say)
    except Exception as error:  # shown once all others have ended
        report(part.name, "failed")
        return error
    if told:  # else there was nothing to do
        report(part.name, "done")
    return None


def second(state_dir: str, shift: int, settings: Mapping[str, str]) -> None:
    """Write the .env file of one more platform on this machine, where there is none."""
    path = env_path()
    if path == ROOT / ".env":
        raise RuntimeFailure("HEADRACE_ENV_FILE says where the .env file of a second platform shall be: set it")
    if not path.is_file():
        envfile.write_privately(path, envfile.beside(EXAMPLE.read_text(), state_dir, shift, settings))


def fetch(place: Place, parts: list[Component]) -> None:
    """Bring everything that `parts` need, several at once."""
    place.servers.mkdir(parents=True, exist_ok=True)
    place.venvs.mkdir(parents=True, exist_ok=True)
    with reporting(console) as report, alone(place.servers / ".lock"), ThreadPoolExecutor(max_workers=len(parts)) as pool:
        failures = [error for error in pool.map(lambda part: _fetch(part, place, report), parts) if error]
    for error in failures:
        raise error


def lock_jars() -> None:
    """Write the sums of all jars anew, after a version in a pom.xml was changed."""
    for folder in sorted(path.parent for path in (ROOT / "runtime" / "maven").glob("*/pom.xml")):
        console.print(_short(folder))
        write_lock(folder, ROOT / ".runtime" / "build" / "lock", lambda _: None)


def _disk_needed(place: Place, profile: str) -> int:
    fetched = all((place.servers / name).is_dir() for name in ("kafka-jars", "elasticsearch", "minio", "postgres"))
    return preflight.DISK_TO_RUN if fetched else preflight.DISK_TO_FETCH[profile]


def _configure(place: Place, parts: list[Component]) -> dict[str, str]:
    sums = {}
    for part in parts:
        part.configure(place)
        folder = place.state / "conf" / part.name
        sums[part.name] = digest_of(*sorted(path for path in folder.rglob("*") if path.is_file())) if folder.is_dir() else ""
    return sums


def down() -> None:
    """End everything, what depends on others first, and leave no process."""
    path = env_path()
    if not path.is_file():
        console.print(f"There is no {_short(path)}: nothing to stop.")
        return
    place = place_at(path)
    supervisor = Supervisor(place)
    states = supervisor.states()
    if states:
        _stop_in_order(place, set(states))
        supervisor.shutdown()
    left = processes.of_platform(place.state)
    processes.end(left)
    survivors = processes.of_platform(place.state)
    if survivors:
        raise RuntimeFailure(f"these processes do not end: {', '.join(str(process.pid) for process in survivors)}")
    console.print("Stopped." if states or left else "Nothing was running.")


def _stop_in_order(place: Place, known: set[str]) -> None:
    for group in stop_order(recall(place), known):
        with ThreadPoolExecutor(max_workers=len(group)) as pool:
            list(pool.map(Supervisor(place).stop, group))


def status() -> bool:
    """Show what runs. True where all of it does."""
    place = place_at(env_path())
    states = Supervisor(place).states()
    if not states:
        console.print("Nothing is running: `make up` starts it.")
        return False
    console.print(tables.status(place, states, recall(place)))
    return all(state.state == "RUNNING" or (state.state == "EXITED" and state.exit_code == 0) for state in states.values())


def logs(name: str | None, lines: int = 200) -> None:
    """Show the ends of the logs, or follow one."""
    place = place_at(env_path())
    folder = place.state / "log"
    known = sorted(path.stem for path in folder.glob("*.log"))
    if name is None:
        if not known:
            raise RuntimeFailure(f"there are no logs in {_short(folder)} yet: `make up` starts the platform")
        os.execvp("tail", ["tail", "-n", "5", *(str(log_path(place, each)) for each in known)])  # noqa: S606
    if name not in known:
        raise RuntimeFailure(f"NAME={name}: there is no such log; there are {', '.join(known) or 'none yet'}")
    os.execvp("tail", ["tail", "-n", str(lines), "-F", str(log_path(place, name))])  # noqa: S606


def clean(sure: bool, everything: bool) -> None:
    """Stop, and remove the platform's data; with `everything` all that was fetched too."""
    path = env_path()
    state = place_at(path).state if path.is_file() else None
    doomed = [folder for folder in [state, *([ROOT / ".runtime", ROOT / ".venv"] if everything else [])] if folder and folder.exists()]
    if not doomed:
        console.print("There is nothing to remove.")
        return
    if not sure:
        console.print(f"This removes {', '.join(_short(folder) for folder in doomed)} with all data in it. Type yes to go on: ", end="")
        if input().strip() != "yes":
            raise RuntimeFailure("nothing was removed")
    down()
    if everything:
        shutil.rmtree(copy_of(ROOT / ".runtime" / "servers" / "postgres"), ignore_errors=True)
    for folder in doomed:
        for link in (folder / "data").glob("*"):
            if link.is_symlink():  # PostgreSQL's data may lie outside
                shutil.rmtree(link.resolve(), ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    console.print(f"Removed {', '.join(_short(folder) for folder in doomed)}.")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
