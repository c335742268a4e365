"""Starting programs: each as soon as what it waits for is ready."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.ordering import startable
from runtime.supervisor import Supervisor, log_path, script, store_script, stored_script

_RUNNING = ("RUNNING", "STARTING")
_RESTARTS = 4  # that many starts without becoming ready: it will not
_LAST_LINES = 12


def start_all(place: Place, programs: Sequence[Program], configured: Mapping[str, str], report: Callable[[str, str], None]) -> None:
    """Start every program in its turn, in parallel where their order allows. Programs that run as they should are left alone.

    `configured` holds a sum over each program's configuration. `report(program, what)` is told of progress. Raises RuntimeFailure, once
    those already begun have ended, for the first program that does not become ready.
    """
    waiting = {program.name: program for program in programs}
    done: set[str] = set()
    running: dict[Future[None], str] = {}
    failures: list[RuntimeFailure] = []
    with ThreadPoolExecutor(max_workers=len(programs) or 1) as pool:
        while waiting or running:
            if not failures:
                for program in startable(waiting, done):
                    del waiting[program.name]
                    running[pool.submit(_start, place, program, configured[program.name], report)] = program.name
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                name = running.pop(future)
                error = future.exception()
                if isinstance(error, RuntimeFailure):
                    report(name, "failed")
                    failures.append(error)
                elif error is not None:
                    raise error
                else:
                    done.add(name)
    if failures:
        raise failures[0]


def _start(place: Place, program: Program, configured: str, report: Callable[[str, str], None]) -> None:
    supervisor = Supervisor(place)
    text = script(place, program, configured)
    state = supervisor.states()[program.name].state
    if state in _RUNNING and text != stored_script(place, program.name):
        report(program.name, "its settings changed: stopping")
        supervisor.stop(program.name)
        state = "STOPPED"
    if state not in _RUNNING:
        if program.prepare:
            report(program.name, "preparing")
            program.prepare()
        store_script(place, program.name, text)
        report(program.name, "starting")
        supervisor.start(program.name)
    _await_ready(supervisor, place, program)
    if program.provision:
        report(program.name, "setting up")
        program.provision()
    report(program.name, "ready")


def _await_ready(supervisor: Supervisor, place: Place, program: Program) -> None:
    deadline = time.monotonic() + program.ready_within
    starts = set[float]()
    while not program.ready():
        now = supervisor.states()[program.name]
        starts.add(now.started_at)
        if now.state == "FATAL" or len(starts) > _RESTARTS:
            raise _not_ready(place, program, "keeps ending")
        if time.monotonic() > deadline:
            raise _not_ready(place, program, f"is not ready after {program.ready_within:g} s")
        time.sleep(0.2)


def _not_ready(place: Place, program: Program, what: str) -> RuntimeFailure:
    log = log_path(place, program.name)
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:] if log.is_file() else []
    last = "".join(f"\n  {line[:300]}" for line in lines) or " nothing"
    return RuntimeFailure(f"{program.name} {what}. Its log is {log}; it ends with:{last}")
