"""The processes of a platform, found by what they carry: so none is left over, whoever started it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

from runtime.supervisor import MARK


def marked(process: psutil.Process, state: Path) -> bool:
    """Whether a process belongs to the platform of `state`.

    It does by its environment or that of a process it came from; or, since PostgreSQL overwrites the one and outlives the other, by
    where it stands.
    """
    with contextlib.suppress(psutil.Error, OSError):
        if any(each.environ().get(MARK) == str(state) for each in (process, *process.parents())):
            return True
    with contextlib.suppress(psutil.Error, OSError):
        folder = Path(process.cwd())
        return any(folder.is_relative_to(kept.resolve()) for kept in (state / "data").glob("*"))
    return False


def of_platform(state: Path) -> list[psutil.Process]:
    """Every process of the platform, but not ourselves and those that started us."""
    ours = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and marked(process, state)]


def end(processes: Iterable[psutil.Process], within: float = 5) -> None:
    """SIGTERM, and SIGKILL for those that are still there `within` seconds later."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=within)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=within)


def family(pid: int) -> list[psutil.Process]:
    """A process and all that came of it."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def processor_seconds(processes: Iterable[psutil.Process]) -> float:
    """Seconds of processor time that these, and their children that have ended, have had since they began."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory(processes: Iterable[psutil.Process]) -> int:
    """Bytes in memory, where what several share is counted once (PSS)."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.Error, OSError):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total
