"""The query that decides, on accounts made by hand: each violation is named, in its store, and nothing else is."""

import os
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest
import trino

from verify.checker import Verdict, verdict_query, verdicts

pytestmark = pytest.mark.usefixtures("servers")

Sending = tuple[str, str, str, str, str, str, int]  # id, kind, detail, payload, canonical, outcome, status
Found = tuple[str, str, str, str | None]  # id, store, station, hash

OK, FAIL, INFO = ("ok", 200), ("fail", 415), ("info", 503)


def good(id: str, *outcomes: tuple[str, int]) -> list[Sending]:
    return [(id, "good", "purchase", f"h-{id}", f"c-{id}", outcome, status) for outcome, status in outcomes]


def arrived(id: str) -> list[Found]:
    return [(id, "lake", "silver.purchase", f"h-{id}"), (id, "lake", "silver.events", None), (id, "search", "events", f"c-{id}")]


def letters(id: str, reason: str, times: int, service: str = "collector") -> list[Found]:
    return [(id, store, f"dead_letters.{service}.{reason}", f"h-{id}") for store in ("lake", "search") for _ in range(times)]


def bad(id: str, *outcomes: tuple[str, int], kind: str = "bad", reason: str = "unknown_type") -> list[Sending]:
    return [(id, kind, reason, f"h-{id}", f"h-{id}", outcome, status) for outcome, status in outcomes]


CLEAN: tuple[list[Sending], list[Found]] = (
    [
        *good("once", OK),
        *good("again", OK, OK, INFO, FAIL),
        *good("open-0", INFO),
        *good("open-1", INFO, INFO),
        *good("refused", FAIL),
        *good("unsent", ("fail", 0)),
        *bad("bad", OK, OK, INFO, INFO),
        *bad("unreadable", ("fail", 400), kind="unparseable", reason="unparseable"),
        *bad("unreadable-unsent", ("fail", 0), kind="unparseable", reason="unparseable"),
        *bad("invalid", OK, kind="invalid", reason="schema_invalid"),
        *bad("spoilt", ("fail", 401), kind="refused", reason="purchase"),
        *good("fought", OK),
        ("fought", "conflict", "id_conflict", "h-other", "c-other", "ok", 200),
        ("old", "absurd", "invalid_attribute", "h-old", "c-old", "ok", 200),
        ("old", "absurd", "invalid_attribute", "h-old", "c-old", "ok", 200),
        ("unscored", "enrichment_fails", "verify_unscored", "h-unscored", "c-unscored", "ok", 200),
    ],
    [
        *arrived("once"),
        *arrived("again"),
        *arrived("open-1"),
        *letters("bad", "unknown_type", 3),
        *letters("unreadable", "unparseable", 1),
        *letters("invalid", "schema_invalid", 1, "enricher"),
        *arrived("fought"),
        ("fought", "lake", "quarantine.id_conflict", "h-other"),
        ("old", "lake", "quarantine.invalid_attribute", "h-old"),
        ("old", "lake", "quarantine.invalid_attribute", "h-old"),
        ("old", "search", "events", "c-old"),
        ("unscored", "lake", "silver.verify_unscored", "h-unscored"),
        ("unscored", "lake", "silver.events", None),
        ("unscored", "search", "events", "c-unscored"),
    ],
)


def relation(rows: list[Any], columns: str) -> str:
    def text(value: object) -> str:
        if value is None:
            return "CAST(NULL AS varchar)"
        return str(value) if isinstance(value, int) else f"'{value}'"

    return f"(SELECT * FROM (VALUES {', '.join('(' + ', '.join(map(text, row)) + ')' for row in rows)}) AS t ({columns}))"


def decided(sendings: list[Sending], found: list[Found]) -> dict[str, Verdict]:
    sql = verdict_query(
        relation(sendings, "id, kind, detail, payload_sha256, search_sha256, outcome, status"),
        relation(found, "id, store, station, sha256"),
    )
    address = urlsplit(os.environ["TRINO_URL"])
    connection = trino.dbapi.connect(host=address.hostname, port=address.port, user=os.environ["TRINO_USER"], request_timeout=120)  # type: ignore[no-untyped-call]
    try:
        cursor = connection.cursor()
        cursor.execute(sql)
        return verdicts(cursor.fetchall())
    finally:
        connection.close()


def test_an_account_that_balances() -> None:
    assert decided(*CLEAN) == {"lake": Verdict("lake"), "search": Verdict("search")}


VIOLATIONS: dict[str, tuple[list[Sending], list[Found], dict[str, int], dict[str, int]]] = {
    "lost everywhere": (good("x", OK), [], {"lost": 2}, {"lost": 1}),
    "lost, though sent again": (good("x", OK, OK), [], {"lost": 2}, {"lost": 1}),
    "lost in Elasticsearch only": (good("x", OK), arrived("x")[:2], {}, {"lost": 1}),
    "typed row lost": (good("x", OK), arrived("x")[1:], {"lost": 1}, {}),
    "dead letter lost": (bad("x", OK), letters("x", "unknown_type", 1)[:1], {}, {"lost": 1}),
    "one of two dead letters lost": (bad("x", OK, OK), letters("x", "unknown_type", 1), {"lost": 1}, {"lost": 1}),
    "unreadable request lost": (bad("x", ("fail", 400), kind="unparseable", reason="unparseable"), [], {"lost": 1}, {"lost": 1}),
    "doubled in one typed table": (good("x", OK), [*arrived("x"), arrived("x")[0]], {"doubled": 1}, {}),
    "doubled by being sent again": (good("x", OK, OK), arrived("x") + arrived("x"), {"doubled": 2}, {"doubled": 1}),
    "doubled though the answer is open": (good("x", INFO), [*arrived("x"), arrived("x")[2]], {}, {"doubled": 1}),
    "more dead letters than sendings": (bad("x", OK, INFO), letters("x", "unknown_type", 3), {"doubled": 1}, {"doubled": 1}),
    "never sent": ([], arrived("x"), {"phantom": 2}, {"phantom": 1}),
    "refused and there": (good("x", FAIL), arrived("x"), {"phantom": 2}, {"phantom": 1}),
    "request refused and there": (bad("x", ("fail", 401), kind="refused", reason="purchase"), arrived("x"), {"phantom": 2}, {"phantom": 1}),
    "other bytes in the lake": (good("x", OK), [("x", "lake", "silver.purchase", "h-else"), *arrived("x")[1:]], {"corrupt": 1}, {}),
    "other values in Elasticsearch": (good("x", OK), [*arrived("x")[:2], ("x", "search", "events", "c-else")], {}, {"corrupt": 1}),
    "other bytes in a dead letter": (
        bad("x", OK),
        [("x", "lake", "dead_letters.collector.unknown_type", "else"), *letters("x", "unknown_type", 1)[1:]],
        {"corrupt": 1},
        {},
    ),
    "another type": (good("x", OK), [("x", "lake", "silver.login", "h-x"), *arrived("x")[1:]], {"wrong_place": 1}, {}),
    "a good one dead-lettered": (
        good("x", OK),
        letters("x", "schema_invalid", 1, "enricher"),
        {"wrong_place": 1, "lost": 1},  # of its two rows in silver one is accounted for by the row elsewhere
        {"wrong_place": 1},
    ),
    "a bad one accepted": (bad("x", OK), arrived("x"), {"wrong_place": 2}, {"wrong_place": 1}),
    "the other content won": (
        [*good("x", OK), ("x", "conflict", "id_conflict", "h-other", "c-other", "ok", 200)],
        [("x", "lake", "silver.purchase", "h-other"), *arrived("x")[1:], ("x", "lake", "quarantine.id_conflict", "h-x")],
        {"corrupt": 2},
        {},
    ),
}  # fmt: skip


NAMES = ("lost", "doubled", "phantom", "corrupt", "wrong_place")


def test_each_violation_is_named_and_nothing_else() -> None:
    """All of them in one account, the ids made different: the sums are right, and so is what is said of each event."""
    sendings, found = list(CLEAN[0]), list(CLEAN[1])
    totals: dict[str, Counter[str]] = {"lake": Counter(), "search": Counter()}
    ids: dict[str, set[str]] = {"lake": set(), "search": set()}
    for number, (sent, there, in_lake, in_search) in enumerate(VIOLATIONS.values()):
        sendings += [(f"x{number}", *one[1:]) for one in sent]
        found += [(f"x{number}", *one[1:]) for one in there]
        for store, wanted in (("lake", in_lake), ("search", in_search)):
            totals[store].update(wanted)
            ids[store] |= {f"x{number} {name.replace('_', ' ')}" for name in wanted}
    verdict = decided(sendings, found)
    for store in ("lake", "search"):
        assert {name: getattr(verdict[store], name) for name in NAMES} == {name: totals[store][name] for name in NAMES}
        assert not verdict[store].clean
        said = set(verdict[store].examples)
        assert {example.split()[0] for example in said} == {id.split()[0] for id in ids[store]}
        assert said <= ids[store], "an event with two violations is named for one of them"
