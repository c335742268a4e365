"""Simulated visits: the same for the same seed, and each event is as good or as bad as it says."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.dead_letter import Invalid, Reason
from headrace.event import rfc3339
from headrace.registry import Registry
from producers.client import Collector, RequestRefused
from producers.simulate import history as history_file
from producers.simulate.__main__ import main
from producers.simulate.products import PRODUCTS, favourite
from producers.simulate.run import paced, run
from producers.simulate.visits import SimulatedEvent, history, sessions

REGISTRY = Registry.load(Path("schemas"))
TIME = "2026-01-31T12:00:00.000Z"


def _take(seed: int, count: int, bad: float = 0.01) -> list[SimulatedEvent]:
    return list(islice(sessions(seed, bad), count))


@settings(max_examples=10)
@given(st.integers(), st.floats(0, 0.9))
def test_the_same_seed_gives_the_same_events(seed: int, bad: float) -> None:
    assert _take(seed, 700, bad) == _take(seed, 700, bad)


@settings(max_examples=10)
@given(st.integers(0, 99), st.floats(0, 0.9))
def test_good_events_do_not_depend_on_the_share_of_bad_ones(seed: int, bad: float) -> None:
    good = [event for event in _take(seed, 600, bad) if event.refusal is None]
    assert good == _take(seed, len(good), bad=0)


def test_another_seed_gives_other_ids() -> None:
    assert not {event.attributes["id"] for event in _take(1, 500)} & {event.attributes["id"] for event in _take(2, 500)}


@settings(max_examples=10)
@given(st.integers(0, 999))
def test_every_event_is_as_good_or_as_bad_as_it_says(seed: int) -> None:
    events = _take(seed, 1500, bad=0.1)
    ids = [event.attributes["id"] for event in events]
    assert len(set(ids)) == len(ids)
    for event in events:
        if event.broken is not None:
            assert event.refusal == ("request", Reason.UNPARSEABLE)
            with pytest.raises(json.JSONDecodeError):
                json.loads(event.text(TIME))
            continue
        sent = json.loads(event.text(TIME))
        assert _judge(sent) == (event.refusal.reason if event.refusal else None), sent


def _judge(sent: dict[str, Any]) -> Reason | None:
    """What the platform must say of an event, by the plan's own files."""
    if not sent["source"] or not sent["id"]:
        return Reason.MISSING_ATTRIBUTE
    if sent["type"] not in REGISTRY.types:
        return Reason.UNKNOWN_TYPE
    if REGISTRY.types[sent["type"]].subject == "required" and not sent["subject"]:
        return Reason.MISSING_ATTRIBUTE
    if sent["time"] != TIME:
        return Reason.INVALID_ATTRIBUTE
    try:
        REGISTRY.validate(REGISTRY.schema_ref(sent["type"], sent.get("dataschema")), json.dumps(sent["data"]).encode())
    except Invalid as problem:
        return problem.reason
    return None


def test_the_shop_is_like_a_shop() -> None:
    events = _take(7, 20_000, bad=0.05)
    types = Counter(event.attributes["type"] for event in events if event.refusal is None)
    assert set(types) == {"page_view", "button_click", "add_to_cart", "login", "alias", "purchase"}
    assert types["page_view"] > types["add_to_cart"] > types["purchase"] > 100
    assert sum(event.refusal is not None for event in events) == pytest.approx(1000, rel=0.2)
    by_session: dict[str, list[SimulatedEvent]] = {}
    for event in events:
        if event.refusal is None and "session_id" in event.attributes["data"]:
            by_session.setdefault(event.attributes["data"]["session_id"], []).append(event)
    whole = [session for session in by_session.values() if session[0].attributes["data"].get("path") == "/"]
    bought = [session for session in whole if any(event.attributes["type"] == "purchase" for event in session)]
    assert bought
    for session in bought:
        [purchase] = [event.attributes for event in session if event.attributes["type"] == "purchase"]
        in_cart = [event.attributes["data"] for event in session if event.attributes["type"] == "add_to_cart"]
        assert purchase["data"]["quantity"] == sum(data["quantity"] for data in in_cart)
        assert purchase["data"]["amount_usd"] == pytest.approx(sum(data["quantity"] * data["price_usd"] for data in in_cart))
        assert session[0].attributes["subject"].startswith("anon-")
        assert purchase["subject"].startswith("sim-customer-")


@settings(max_examples=20)
@given(st.integers(1, 3000), st.integers(1, 500))
def test_as_fast_as_it_goes_sends_each_event_once_in_order(count: int, size: int) -> None:
    groups = list(paced(iter(_take(7, count)), None, None, size))
    assert [event for group in groups for event in group] == _take(7, count)
    assert all(len(group) <= size for group in groups)


def test_a_rate_and_a_duration_say_how_many() -> None:
    assert sum(len(group) for group in paced(sessions(7), 2000, 0.3, 50)) == 600


def _answers(answer: Callable[[list[Any]], httpx.Response]) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        try:
            return answer(json.loads(request.content))
        except json.JSONDecodeError:
            return httpx.Response(400, json={"code": "unparseable", "message": "not JSON"})

    return httpx.MockTransport(handle)


def _good_collector(events: list[Any]) -> httpx.Response:
    reasons = [(index, _judge(event | {"time": TIME if event["time"] != "yesterday" else ""})) for index, event in enumerate(events)]
    refused = [(index, reason) for index, reason in reasons if reason not in (None, Reason.SCHEMA_INVALID)]
    rejected = [{"index": index, "id": None, "reason": reason, "detail": "d"} for index, reason in refused]
    return httpx.Response(200, json={"accepted": len(events) - len(rejected), "rejected": rejected})


def _groups(count: int) -> Sequence[Sequence[SimulatedEvent]]:
    return list(paced(iter(_take(7, count, bad=0.2)), None, None, 100))


def test_the_tally_compares_what_is_said_with_what_must_be() -> None:
    tally = run(_groups(2000), lambda: Collector("http://x", "k", transport=_answers(_good_collector)), connections=3)
    assert tally.as_expected
    assert sum(tally.sent.values()) == 2000
    assert tally.accepted + sum(tally.rejected.values()) == 2000
    assert set(tally.rejected) == {"unknown_type", "unknown_schema", "missing_attribute", "invalid_attribute", "unparseable"}
    assert tally.later["schema_invalid"] > 0
    careless = run(
        _groups(500),
        lambda: Collector("http://x", "k", transport=_answers(lambda events: httpx.Response(200, json={"accepted": len(events)}))),
        connections=1,
    )
    assert not careless.as_expected


def test_a_refused_key_ends_it_and_leaves_no_thread() -> None:
    answer = httpx.MockTransport(lambda _: httpx.Response(401, json={"code": "unauthorized", "message": "no known write key"}))
    with pytest.raises(RequestRefused, match=r"answered 401 \(unauthorized\): no known write key"):
        run(_groups(3000), lambda: Collector("http://x", "k", transport=answer), connections=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("simulate-")]


def test_one_connection_that_fails_ends_all() -> None:
    calls = iter(range(10_000))

    def answer(request: httpx.Request) -> httpx.Response:
        if next(calls) == 3:
            return httpx.Response(403, json={"code": "forbidden", "message": "no more"})
        return _answers(_good_collector).handle_request(request)

    with pytest.raises(RequestRefused, match="no more"):
        run(_groups(3000), lambda: Collector("http://x", "k", transport=httpx.MockTransport(answer)), connections=4)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("simulate-")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "say when to end"),
        (["--events", "0"], "0 is not at least 1"),
        (["--duration", "-1"], "-1 is not above 0"),
        (["--events", "1", "--bad", "1"], "1 is no share"),
        (["--events", "1", "--rate", "quick"], "invalid _rate value: 'quick'"),
        (["--events", "1", "--batch", "501"], "at most 500"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_customers_buy_what_they_like() -> None:
    """So that there is something to recommend: of what they like more is bought than of anything by its popularity."""
    genres = {product.id: product.genre for product in PRODUCTS}
    own, all_in_all = 0, 0
    for _, event in history(7, 3_000, 86_400):
        if event.attributes["type"] == "purchase":
            bought = [line["product_id"] for line in event.attributes["data"]["products"]]
            own += sum(genres[id] == favourite(event.attributes["subject"]) for id in bought)
            all_in_all += len(bought)
    assert all_in_all > 500
    assert own / all_in_all == pytest.approx(0.7 + 0.3 / 5, abs=0.07)


def test_a_history_is_whole_visits_in_their_order(tmp_path: Path) -> None:
    events = history(7, 400, 7 * 86_400)
    assert events == history(7, 400, 7 * 86_400)
    assert [at for at, _ in events] == sorted(at for at, _ in events)
    ids = [event.attributes["id"] for _, event in events]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & {event.attributes["id"] for event in _take(7, 2_000)}
    spans: dict[str, list[float]] = {}
    for at, event in events:
        spans.setdefault(event.attributes["data"].get("session_id", "alias"), []).append(at)
    del spans["alias"]
    assert len(spans) == 400
    assert max(max(span) - min(span) for span in spans.values()) < 3_600
    file = tmp_path / "shop.jsonl"
    assert history_file.write(file, 7, 400, datetime(2026, 1, 5, tzinfo=UTC), 7) == len(events)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["id"] for line in lines] == ids
    assert all(_judge(line | {"time": TIME}) is None for line in lines)
    assert lines[0]["time"] == rfc3339(datetime(2026, 1, 5, tzinfo=UTC) + timedelta(seconds=events[0][0]))
    assert list(tmp_path.iterdir()) == [file]
