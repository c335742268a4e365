"""The negative controls: the checker has to notice each of five seeded mistakes, for what it is.

Each control is a short run of its own: the mistake goes into the real process, a fault meets it, and the account must show what the mistake
does. A checker that calls such a run clean proves nothing with any other run.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from verify.checker import LAKE, SEARCH, Verdict
from verify.faults import Cut, Fault, FullSearch, Kill, Stop, Unanswered, await_commit
from verify.site import LINKS, Site

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Control:
    """A mistake: the program that makes it (None: curation), what brings it out, and the violation by which it is noticed, in which store.

    `missing_files`: it is noticed by files of the lake that are gone, which makes the curation fail.
    """

    mutant: str
    program: str | None
    provoke: Callable[[Site], None]
    store: str
    violation: str
    missing_files: bool = False

    def noticed(self, verdicts: Mapping[str, Verdict], files_gone: int) -> bool:
        """Whether the account shows it."""
        return bool(files_gone) if self.missing_files else getattr(verdicts[self.store], self.violation) > 0


def _during(outer: Fault, inner: Fault) -> None:
    """`inner` happens in the midst of `outer`."""
    try:
        outer.begin()
        time.sleep(3)
        inner.begin()
        time.sleep(1)
    finally:
        outer.end()
        inner.end()


def _kafka_away_from_the_collector(site: Site) -> None:
    link = next(link for link in LINKS if link.name == "collector-kafka")
    _during(Cut(site, link, "", _NONE), Kill(site, "collector", "", _NONE))


def _elasticsearch_still(site: Site) -> None:
    _during(Stop(site, "elasticsearch", "", _NONE), Kill(site, "realtime-loader", "", _NONE))


def _elasticsearch_full(site: Site) -> None:
    fault = FullSearch(site, "", _NONE)
    try:
        fault.begin()
        time.sleep(4)
    finally:
        fault.end()


def _answer_of_a_commit_lost(site: Site) -> None:
    link = next(link for link in LINKS if link.name == "batch-loader-postgres")
    fault = Unanswered(site, link, "", _NONE, lambda: await_commit(site, "events"))
    try:
        fault.begin()
        time.sleep(1)
    finally:
        fault.end()
    time.sleep(8)


def _nothing(_: Site) -> None:
    """Events that are sent again are enough."""


# The last one leaves a lake that cannot be read any more.
CONTROLS = (
    Control("ack_before_flush", "collector", _kafka_away_from_the_collector, LAKE, "lost"),
    Control("auto_commit_before_deliver", "realtime-loader", _elasticsearch_still, SEARCH, "lost"),
    Control("ignored_bulk_items", "realtime-loader", _elasticsearch_full, SEARCH, "lost"),
    Control("deduplication_off", None, _nothing, LAKE, "doubled"),
    Control("cleanup_on_unknown_commit", "batch-loader", _answer_of_a_commit_lost, LAKE, "lost", missing_files=True),
)


def mutated(mutant: str) -> Callable[[str], str]:
    """How a program's script is changed so that it starts with the mistake in it."""

    def change(command: str) -> str:
        before, _, module = command.rpartition(" -m ")
        return f"{before} -m verify.mutants {mutant} {module}"

    return change
