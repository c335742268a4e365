"""What the demo sends, and what must become of each event."""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.dead_letter import TOPIC_PREFIX, Reason
from producers.cdnow.purchases import read_purchases
from producers.client import Collector, RequestRefused
from producers.client.batches import batches
from producers.client.collector import EVENT_TYPE
from producers.website.visit import browser_like_visit

SOURCE = "demo"
PATIENCE_SECONDS = 60
AT_COLLECTOR, AT_ENRICHER = TOPIC_PREFIX + "collector", TOPIC_PREFIX + "enricher"

Event = dict[str, Any]


@dataclass
class Plan:
    """What was sent in one run. `mark` stands in every event of the run but the visit's, so that its dead letters can be found."""

    mark: str
    good_by_type: dict[str, list[str]] = field(default_factory=dict)
    bad_at_enricher: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    expect_letters: dict[str, Counter[str]] = field(default_factory=dict)  # by topic, then by reason
    expect_replied: Counter[str] = field(default_factory=Counter)
    replied: Counter[str] = field(default_factory=Counter)
    good_sent: int = 0
    bad_sent: int = 0
    sent_again: int = 0
    expect_accepted: int = 0
    accepted: int = 0

    @property
    def good(self) -> list[str]:
        """Ids of the events that must arrive in silver."""
        return [id for ids in self.good_by_type.values() for id in ids]


def send(env: Mapping[str, str], run: str, purchases: int, data: Path) -> Plan:
    """Send it all. Raises GaveUp and RequestRefused (producers.client.collector), Unavailable and BadData."""
    plan = Plan(mark=f"demo-{run}")
    address, key = env["HEADRACE_COLLECTOR_URL"], env["HEADRACE_WRITE_KEY"]
    bought = real_purchases(plan.mark, data, purchases)
    with Collector(address, key, patience=PATIENCE_SECONDS) as collector:
        _post(collector, plan, bought)
        plan.good_by_type["purchase"] = [event["id"] for event in bought]
        visited = browser_like_visit(address, key)
        for sent in visited:
            plan.good_by_type.setdefault(sent.type, []).append(sent.id)
        plan.good_sent = len(bought) + len(visited)
        plan.accepted += len(visited)  # it raises unless the collector takes all
        again = bought[:20]
        _post(collector, plan, again)
        plan.sent_again = len(again)
        _send_bad(collector, plan, bought[0])
    plan.expect_accepted = plan.good_sent + plan.sent_again + len(plan.bad_at_enricher) + len(plan.conflicts)
    return plan


def real_purchases(mark: str, data: Path, count: int) -> list[Event]:
    """`count` real purchases in a row, from a place drawn by chance, as events of this run. Raises BadData."""
    real = read_purchases(data)
    first = random.randrange(max(1, len(real) - count))
    return [
        {**_event(f"{mark}-{number:05}", subject=each.customer_id), "time": each.time, "data": each.data}
        for number, each in enumerate(real[first : first + count])
    ]


def _event(id: str, type: str = "purchase", subject: str | None = "customer-1") -> Event:
    event = {"specversion": "1.0", "id": id, "source": SOURCE, "type": type, "time": "2026-01-31T12:00:00Z"}
    return event | ({"subject": subject} if subject else {}) | {"data": {"quantity": 1, "amount_usd": 14.99}}


def _send_bad(collector: Collector, plan: Plan, sent_before: Event) -> None:
    """A handful of events that must be refused, each at its station and for its reason."""
    name = iter(f"{plan.mark}-bad-{number}" for number in range(100))
    at_collector = [
        (Reason.UNKNOWN_TYPE, _event(next(name), type="no_such_type")),
        (Reason.UNKNOWN_SCHEMA, _event(next(name)) | {"dataschema": "purchase/9-9-9"}),
        (Reason.MISSING_ATTRIBUTE, _event(next(name)) | {"source": ""}),
        (Reason.MISSING_ATTRIBUTE, _event(next(name), subject=None)),
        (Reason.INVALID_ATTRIBUTE, _event(next(name)) | {"time": "yesterday"}),
        (Reason.TOO_LARGE, _event(next(name)) | {"data": {"text": "x" * 40_000}}),
    ]
    at_enricher = [
        _event(next(name)) | {"data": {"quantity": "two", "amount_usd": 1}},
        _event(next(name)) | {"data": {"amount_usd": 1}},
        _event(next(name), type="page_view") | {"data": {"url": 7}},
    ]
    other_content = sent_before | {"data": {"quantity": 99, "amount_usd": 99.99}}

    _post(collector, plan, [*(event for _, event in at_collector), *at_enricher, other_content])
    plan.expect_replied.update(reason.value for reason, _ in at_collector)
    try:
        collector.send_body(f'{{"id": "{plan.mark}", '.encode(), EVENT_TYPE)
    except RequestRefused as refusal:
        plan.replied[refusal.code] += 1
    plan.expect_replied[Reason.UNPARSEABLE.value] += 1
    plan.bad_at_enricher = [event["id"] for event in at_enricher]
    plan.conflicts = [other_content["id"]]
    plan.bad_sent = len(at_collector) + len(at_enricher) + 2
    plan.expect_letters = {AT_COLLECTOR: plan.expect_replied, AT_ENRICHER: Counter({Reason.SCHEMA_INVALID.value: len(at_enricher)})}


def _post(collector: Collector, plan: Plan, events: Sequence[Event]) -> None:
    for batch in batches(json.dumps(event).encode() for event in events):
        reply = collector.send(batch)
        plan.accepted += reply.accepted
        plan.replied.update(refused.reason for refused in reply.rejected)
