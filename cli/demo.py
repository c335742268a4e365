"""`headrace demo`: send events of every kind, curate, and account for each of them at every station."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli import airflow, stations
from cli.context import ROOT, fail, not_reachable, out, settings
from cli.sending import Plan, send
from headrace.dead_letter import Unavailable
from headrace.event import ENRICHED_TOPIC, RAW_TOPIC
from headrace.kafka import DEAD_LETTER_TOPICS
from producers.cdnow.purchases import BadData
from producers.client import GaveUp, RequestRefused


@dataclass
class Row:
    """One line of the account."""

    station: str
    expected: str
    found: str
    balances: bool
    remark: str = ""


@dataclass
class Account:
    """What was expected and found, station by station. It balances when every row does."""

    rows: list[Row] = field(default_factory=list)

    @property
    def balances(self) -> bool:
        """Whether everything that was sent is accounted for, once."""
        return bool(self.rows) and all(row.balances for row in self.rows)

    def add(self, station: str, expected: object, found: object, remark: str = "", balances: bool | None = None) -> None:
        """A row that balances where both are equal, or as said."""
        self.rows.append(Row(station, str(expected), str(found), expected == found if balances is None else balances, remark))

    def once(self, station: str, wanted: Sequence[str], found: Counter[str], remark: str = "") -> None:
        """A row that balances where each of `wanted` was found exactly once."""
        missing = [id for id in wanted if not found[id]]
        doubled = [id for id in wanted if found[id] > 1]
        said = [f"{len(missing)} missing, such as {missing[0]}"] if missing else []
        said += [f"{len(doubled)} more than once, such as {doubled[0]}"] if doubled else []
        self.add(station, len(wanted), sum(found[id] for id in wanted), "; ".join(said) or remark, not (missing or doubled))


def demo(
    purchases: Annotated[int, typer.Option(min=1, max=20_000, help="How many of the real purchases to send.")] = 1000,
    within: Annotated[int, typer.Option(help="Seconds that events may take to arrive before it counts as loss.")] = 150,
    report: Annotated[Path | None, typer.Option(help="Write the account to this file too, as JSON.")] = None,
) -> None:
    """Send real purchases, a visit and bad events to the running platform, curate, and account for all of them at every station."""
    env = settings()
    began = datetime.now(UTC)
    try:
        with _step("Noting where the topics end"):
            kafka = stations.Kafka(env)
        with _step("Sending"):
            plan = send(env, run=uuid.uuid4().hex[:8], purchases=purchases, data=ROOT / env["ENRICHMENT_API_DATA_FILE"])
        account = _account(env, kafka, plan, began, within)
    except (Unavailable, GaveUp, RequestRefused) as problem:
        fail(f"{problem}: `make status` shows what runs")
    except BadData as problem:
        fail(str(problem))
    except KafkaException as problem:
        not_reachable(f"Kafka ({problem.args[0].str()})", env["KAFKA_BOOTSTRAP_SERVERS"])
    out.print(_table(account))
    if report is not None:
        report.write_text(json.dumps([asdict(row) for row in account.rows], indent=2) + "\n")
    if not account.balances:
        fail("not everything that was sent is accounted for, once: see the rows marked no")
    out.print("Everything sent is accounted for, once.", style="green")


def _account(env: Mapping[str, str], kafka: stations.Kafka, plan: Plan, began: datetime, within: int) -> Account:
    account = Account()
    sent = plan.good_sent + plan.bad_sent + plan.sent_again
    account.add("sent", sent, sent, f"{plan.good_sent} good, {plan.sent_again} of them again, {plan.bad_sent} bad")
    account.add("accepted with 200", plan.expect_accepted, plan.accepted)
    account.add("rejected in the reply", _spelt(plan.expect_replied), _spelt(plan.replied))
    good, refused, conflicts = plan.good, plan.expect_letters, plan.conflicts

    def letters_by_topic() -> dict[str, stations.Found]:
        return {topic: stations.in_dead_letter_topic(kafka, topic, plan.mark) for topic in DEAD_LETTER_TOPICS}

    with _step("Waiting for the enricher"):
        _wait(lambda: all(not expected - letters_by_topic()[topic].reasons for topic, expected in refused.items()), within)
        _wait(lambda: set(good) <= set(stations.in_topic(kafka, ENRICHED_TOPIC, set(good)).events), within)
        raw = stations.in_topic(kafka, RAW_TOPIC, {*good, *plan.bad_at_enricher}).events
        enriched = stations.in_topic(kafka, ENRICHED_TOPIC, {*good, *plan.bad_at_enricher}).events
        letters = letters_by_topic()
    for topic, found in ((RAW_TOPIC, raw), (ENRICHED_TOPIC, enriched)):
        expected = {*good, *plan.bad_at_enricher} if topic == RAW_TOPIC else set(good)
        repeated = sum(found.values()) - len(found)
        account.add(topic, len(expected), len(found), f"identities; {repeated} sent again", set(found) == expected)
    for topic in DEAD_LETTER_TOPICS:
        distinct = letters[topic].distinct
        again = len(letters[topic].dead_letters) - sum(distinct.values())
        account.add(topic, _spelt(refused.get(topic, {})), _spelt(distinct), f"{again} sent again" if again else "")
    letter_ids = [letter.dead_letter_id for found in letters.values() for letter in found.dead_letters]

    search, catalog = _search(env), _catalog(env)
    with _step("Waiting for both loaders"):
        found = _wait_for(lambda: stations.in_elasticsearch(search, good, letter_ids), [*good, *letter_ids], within)
        account.once("Elasticsearch", good, found, "events")
        account.once("Elasticsearch", letter_ids, found, "dead letters")
        landed = _wait_for(lambda: stations.in_bronze(catalog, began, {*good}, {*letter_ids}), [*good, *letter_ids], within)
    events_landed = sum(landed[id] for id in good)
    account.add("bronze", sum(enriched[id] for id in good), events_landed, "events as landed, sent again included")
    account.once("bronze", letter_ids, landed, "dead letters")
    if env["PROFILE"] == "core":
        account.add("silver, gold", "-", "-", "not in the profile core")
        return account

    with _step("Curating: bronze to silver (PySpark), silver to gold (dbt)"):
        airflow.run_dag(env, "curate", within=max(within, 170))
    with _step("Counting in the lake"), _cursor(env) as cursor:
        silver = stations.in_table(cursor, "lake.silver.events", "id", good)
        account.once("silver.events", good, silver)
        for type, ids in sorted(plan.good_by_type.items()):
            account.once(f"silver.{type}", ids, stations.in_table(cursor, f"lake.silver.{type}", "id", ids))
        account.once("silver.quarantine", conflicts, stations.in_table(cursor, "lake.silver.quarantine", "id", conflicts), "id_conflict")
        account.once("silver.dead_letters", letter_ids, stations.in_table(cursor, "lake.silver.dead_letters", "dead_letter_id", letter_ids))
        bought = plan.good_by_type.get("purchase", [])
        account.once("gold.fact_purchase", bought, stations.in_table(cursor, "lake.gold.fact_purchase", "event_id", bought))
    return account


def _wait(done: Callable[[], bool], within: float) -> None:
    """Until `done`, or until the time is over: the account then says what is missing."""
    deadline = time.monotonic() + within
    while not done() and time.monotonic() < deadline:
        time.sleep(1)


def _wait_for(look: Callable[[], stations.Found], wanted: Sequence[str], within: float) -> Counter[str]:
    found: Counter[str] = Counter()

    def all_there() -> bool:
        nonlocal found
        found = look().events
        return all(found[id] for id in wanted)

    _wait(all_there, within)
    return found


def _spelt(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()) if count) or "none"


def _search(env: Mapping[str, str]) -> Any:
    from headrace.search import client_of

    return client_of(env, request_timeout=30)


def _catalog(env: Mapping[str, str]) -> Any:
    from headrace.lake import LakeSettings, load_catalog

    return load_catalog(LakeSettings.of(env))


@contextmanager
def _cursor(env: Mapping[str, str]) -> Iterator[Any]:
    from headrace.trino import connection

    opened = connection(env, "headrace")
    try:
        yield opened.cursor()
    finally:
        opened.close()  # type: ignore[no-untyped-call]


@contextmanager
def _step(what: str) -> Iterator[None]:
    if not out.is_terminal:
        out.print(what)
        yield
        return
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=out) as progress:
        progress.add_task(what, total=None)
        yield


def _table(account: Account) -> Table:
    table = Table(title="Where everything went")
    for heading in ("station", "expected", "found", "once", "remark"):
        table.add_column(heading)
    for row in account.rows:
        expected, found = (text.replace(", ", "\n") for text in (row.expected, row.found))
        table.add_row(row.station, expected, found, "[green]yes" if row.balances else "[red]no", row.remark)
    return table
