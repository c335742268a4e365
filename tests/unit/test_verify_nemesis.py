"""What the checker decides without touching anything: the schedule, when a station has caught up, what makes a proof empty."""

import threading
from collections import Counter
from pathlib import Path

import pytest

from headrace.registry import Registry
from verify import plan
from verify.checker import Verdict
from verify.controls import CONTROLS, mutated
from verify.events import UNSCORED_TYPE
from verify.ledger import Outcome, Row, Sent
from verify.mutants import MUTANTS
from verify.nemesis import Happened, Nemesis, Planned, schedule, startable
from verify.report import Demands, Sendings, counted, emptiness, figures
from verify.site import with_listeners, with_settings
from verify.watch import ENRICHED, LAKE, Sample, caught_up

KINDS = ["kill_kafka", "cut_a", "cut_b", "slow_c"]


def test_every_kind_comes_before_any_comes_again() -> None:
    planned = schedule(7, 10, KINDS)
    kinds = [each.kind for each in planned]
    assert Counter(kinds[:4]) == Counter(KINDS)
    assert Counter(kinds[4:8]) == Counter(KINDS)
    assert [each.number for each in planned] == list(range(10))
    assert all(1 <= each.hold_seconds <= 13 for each in planned)


def test_the_schedule_is_that_of_its_seed() -> None:
    assert schedule(7, 50, KINDS) == schedule(7, 50, list(reversed(KINDS)))
    assert schedule(7, 50, KINDS) != schedule(8, 50, KINDS)
    assert max(each.hold_seconds for each in schedule(7, 50, KINDS, short=True)) <= 2.5


TOUCHES = {"kill_kafka": frozenset("abc"), "cut_a": frozenset("a"), "cut_b": frozenset("b"), "slow_c": frozenset("c")}


def planned(*kinds: str) -> list[Planned]:
    return [Planned(number, kind, 1.0) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize(
    ("waiting", "busy", "wanted"),
    [
        (["cut_a", "cut_b"], "", "cut_a"),
        (["cut_a", "cut_b"], "a", "cut_b"),
        (["kill_kafka", "cut_b"], "a", None),  # what touches all waits, and nothing overtakes it
        (["cut_a", "cut_a"], "a", None),
        ([], "", None),
    ],
)
def test_who_may_start(waiting: list[str], busy: str, wanted: str | None) -> None:
    found = startable(planned(*waiting), TOUCHES, frozenset(busy))
    assert (found.kind if found else None) == wanted


class Scripted:
    """A fault that notes what is done with it."""

    station = "lake"
    touches = frozenset({"lake"})

    def __init__(self, notes: list[str], fails: bool = False) -> None:
        self._notes, self._fails = notes, fails

    def begin(self) -> None:
        self._notes.append("begin")
        if self._fails:
            raise OSError("no such process")

    def end(self) -> None:
        self._notes.append("end")


def carried_out(folder: Path, fails: bool, recovered: float) -> tuple[list[str], list[Happened]]:
    notes: list[str] = []
    nemesis = Nemesis(
        [Planned(0, "x", 0.0), Planned(1, "x", 0.0)], {"x": lambda: Scripted(notes, fails)}, lambda _, at: at + recovered, folder / "log", 3
    )
    nemesis.start()
    for thread in threading.enumerate():
        if thread.name.startswith("nemesis"):
            thread.join()
    return notes, nemesis.happened


def test_faults_of_one_station_come_one_after_the_other(tmp_path: Path) -> None:
    notes, happened = carried_out(tmp_path, fails=False, recovered=2.5)
    assert notes == ["begin", "end", "begin", "end"]
    assert [(each.kind, each.recovery_seconds, each.problem) for each in happened] == [("x", 2.5, None)] * 2
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_fault_that_could_not_be_done_is_undone_and_does_not_count(tmp_path: Path) -> None:
    notes, happened = carried_out(tmp_path, fails=True, recovered=0)
    assert notes == ["begin", "end", "begin", "end"]
    assert [each.problem for each in happened] == ["OSError: no such process"] * 2
    assert emptiness(Sendings(Counter({Outcome.OK: 10})), happened, Demands(10, 2, ["x"])) == [
        "only 0 faults happened, not 2",
        "these kinds of fault did not happen: x",
    ]


RAW = ("events.raw", 0)


def test_a_station_has_caught_up_once_it_is_past_what_had_come_by_then() -> None:
    samples = [
        Sample(1.0, {RAW: 100}, {ENRICHED: {RAW: 100}}),
        Sample(2.0, {RAW: 200}, {ENRICHED: {RAW: 100}}),
        Sample(3.0, {RAW: 300}, {ENRICHED: {RAW: 150}}),
        Sample(4.0, {RAW: 400}, {ENRICHED: {RAW: 200}}),
    ]
    assert caught_up(samples, ENRICHED, 1.5) == 4.0
    assert caught_up(samples, ENRICHED, 2.5) is None
    assert caught_up(samples, ENRICHED, 9.0) is None
    assert caught_up([Sample(5.0, {RAW: 7, ("events.enriched", 0): 9}, {LAKE: {("events.enriched", 0): 8}})], LAKE, 5.0) == 5.0


def happened(kind: str, outage: float, recovery: float | None, problem: str | None = None) -> Happened:
    return Happened(0, kind, "lake", 1.0, outage, recovery, problem)


def test_a_proof_that_is_empty_is_refused() -> None:
    faults = [happened("kill_kafka", 1, 1), happened("cut_a", 1, 1, "OSError: x")]
    sent = Sendings(Counter({Outcome.OK: 99, Outcome.INFO: 1000}))
    assert emptiness(sent, faults, Demands(100, 2, ["kill_kafka", "cut_a"])) == [
        "only 99 events were acknowledged, not 100",
        "only 1 faults happened, not 2",
        "these kinds of fault did not happen: cut_a",
    ]
    assert emptiness(sent, faults[:1], Demands(99, 1, ["kill_kafka"])) == []
    stuck = [happened("kill_kafka", 1, None)]
    assert emptiness(sent, stuck, Demands(99, 1, ["kill_kafka"])) == ["no recovery was seen within 120 s after: kill_kafka"]


def row(request: int, id: str, outcome: Outcome, at: float, *, attempt: int = 1, kind: str = "good") -> Row:
    return Row(request, attempt, "rest", Sent(id, "purchase", kind, "purchase", "a", "b"), outcome, 200, at)


def test_the_figures() -> None:
    sent = counted(
        [
            row(0, "a", Outcome.OK, 10.0),
            row(0, "b", Outcome.OK, 10.0),
            row(1, "c", Outcome.INFO, 0.0),
            row(2, "c", Outcome.OK, 14.5, attempt=2),
            row(3, "a", Outcome.OK, 15.0),
            row(4, "a", Outcome.OK, 15.5, kind="conflict"),
        ]
    )
    assert (sent.retries, sent.again, sent.longest_gap_seconds) == (1, 1, 4.5)
    faults = [happened("cut_a", 2.0, 1.0), happened("cut_a", 4.0, 5.0), happened("cut_b", 1.0, None, "OSError: x")]
    verdicts = {"lake": Verdict("lake", lost=3), "search": Verdict("search", doubled=1)}
    found = figures(sent, faults, verdicts, {"enricher.schema_invalid": 4}, (1000, 990))
    wanted = {
        "offered_events": 6,
        "ok_events": 5,
        "info_events": 1,
        "fail_events": 0,
        "lost_events": 3,
        "doubled_events": 0,
        "search_doubled_events": 1,
        "search_lost_events": 0,
        "dead_letters_enricher_schema_invalid": 4,
        "duplicates_per_million_before_deduplication": 10_000,
        "longest_gap_between_acks_seconds": 4.5,
        "faults": 2,
        "faults_cut_a": 2,
        "outage_cut_a_median_seconds": 3.0,
        "recovery_cut_a_median_seconds": 3.0,
        "recovery_cut_a_longest_seconds": 5.0,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert "faults_cut_b" not in found


def test_a_script_gets_other_settings() -> None:
    script = "# c\nexport A=1\nexport AB='x y'\ncd /x && exec y\n"
    assert with_settings(script, {"A": "2 3"}) == "# c\nexport A='2 3'\nexport AB='x y'\ncd /x && exec y\n"
    with pytest.raises(ValueError, match="no setting B"):
        with_settings(script, {"B": "1"})


def test_kafka_gets_a_listener_for_each_client() -> None:
    properties = "listeners=PLAINTEXT://h:1,CONTROLLER://h:2\nadvertised.listeners=PLAINTEXT://h:1\ncontroller.listener.names=CONTROLLER\n"
    assert with_listeners(properties, "h", {"COLLECTOR": (3, 4)}).splitlines() == [
        "listeners=PLAINTEXT://h:1,CONTROLLER://h:2,COLLECTOR://h:3",
        "advertised.listeners=PLAINTEXT://h:1,COLLECTOR://h:4",
        "controller.listener.names=CONTROLLER",
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,COLLECTOR:PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
    ]


def test_each_mistake_has_its_control() -> None:
    assert CONTROLS[-1].mutant == "cleanup_on_unknown_commit", "it leaves a lake that cannot be read"
    assert set(MUTANTS) == {each.mutant for each in CONTROLS}
    script = "export A='b -m c'\ncd /x && exec /x/python -m loaders.batch.main\n"
    assert mutated("ignored_bulk_items")(script) == (
        "export A='b -m c'\ncd /x && exec /x/python -m verify.mutants ignored_bulk_items loaders.batch.main\n"
    )


def test_a_control_is_noticed_only_by_what_its_mistake_does() -> None:
    by_name = {each.mutant: each for each in CONTROLS}
    clean = {"lake": Verdict("lake"), "search": Verdict("search")}
    lost_in_search = clean | {"search": Verdict("search", lost=3)}
    assert not by_name["ignored_bulk_items"].noticed(clean, 0)
    assert by_name["ignored_bulk_items"].noticed(lost_in_search, 0)
    assert not by_name["ack_before_flush"].noticed(lost_in_search, 0)
    assert not by_name["cleanup_on_unknown_commit"].noticed(clean | {"lake": Verdict("lake", lost=9)}, 0)
    assert by_name["cleanup_on_unknown_commit"].noticed(clean, 2)


def test_the_plan_knows_one_type_more(tmp_path: Path) -> None:
    plan.write(Path(__file__).parents[2] / "schemas", tmp_path / "schemas")
    ours, theirs = Registry.load(tmp_path / "schemas"), Registry.load(Path(__file__).parents[2] / "schemas")
    assert set(ours.types) - set(theirs.types) == {UNSCORED_TYPE}
    assert list(ours.types[UNSCORED_TYPE].enrich) == ["no_such_model"]
