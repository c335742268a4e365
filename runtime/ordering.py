"""The order in which programs start."""

from collections.abc import Mapping, Sequence

from runtime.component import Program
from runtime.errors import RuntimeFailure


def check(programs: Sequence[Program]) -> None:
    """Raises RuntimeFailure where two programs share a name, wait for one that is not there, or wait for one another."""
    names = [program.name for program in programs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RuntimeFailure(f"two programs are called {', '.join(twice)}")
    for program in programs:
        missing = sorted(set(program.after) - set(names))
        if missing:
            raise RuntimeFailure(f"{program.name} waits for {', '.join(missing)}, which this profile has not")
    levels(programs)


def levels(programs: Sequence[Program]) -> list[list[Program]]:
    """Programs in groups: each waits only for programs of earlier groups. Raises RuntimeFailure for a circle."""
    named = {program.name: program for program in programs}
    return [[named[name] for name in group] for group in grouped({program.name: program.after for program in programs})]


def grouped(after: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names in `after` in groups: each comes after all those that it waits for. Raises RuntimeFailure for a circle."""
    left, done, found = list(after), set[str](), list[list[str]]()
    while left:
        group = [name for name in left if done.issuperset(after[name])]
        if not group:
            raise RuntimeFailure(f"these programs wait for one another: {', '.join(sorted(left))}")
        found.append(group)
        done |= set(group)
        left = [name for name in left if name not in done]
    return found


def startable(waiting: Mapping[str, Program], done: set[str]) -> list[Program]:
    """Those that need wait no longer."""
    return [program for program in waiting.values() if done.issuperset(program.after)]
