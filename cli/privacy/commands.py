"""`headrace privacy`: erase a person from everything that keeps events."""

import getpass
import re
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import psycopg2
import requests
import typer
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigResource
from elasticsearch import ApiError, Elasticsearch, TransportError
from rich.table import Table
from trino.exceptions import Error, HttpError, TrinoQueryError

from cli.context import err, fail, not_reachable, out, settings
from cli.kafka import admin_of
from cli.privacy import online, search
from cli.privacy import person as who
from cli.privacy.lake import SOURCE, Busy, Lake, Size, alone
from cli.privacy.person import Person
from dags.upkeep.main import cursor_of
from dags.upkeep.tables import LEAST_ORPHAN_HOURS
from headrace import event
from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line
from headrace.kafka import DEAD_LETTER_TOPICS
from headrace.online import OnlineStore
from headrace.privacy import pseudonym
from headrace.search import client_of

app = typer.Typer(no_args_is_help=True, help="Personal data: erase a person.")
_WAIT = 1800  # seconds for a curation that runs
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_TOPICS = (event.RAW_TOPIC, event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS)


@app.callback()
def _group() -> None:
    """Personal data: erase a person."""


@app.command()
def erase(
    subject: Annotated[list[str], typer.Option(help="How events name the person (their attribute subject). May be given more than once.")],
    source: Annotated[str | None, typer.Option(help="Of this source alone: sources may call different people the same.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is of the person, and erase nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    orphans: Annotated[
        str,
        typer.Option(
            help="Delete files that no table names, left by writers that were killed, once they are so old. Less than a day only "
            "with the batch loader stopped: a file is written before it is named."
        ),
    ] = f"{LEAST_ORPHAN_HOURS}h",
) -> None:
    """Erase a person: from bronze, silver, gold, dead letters, quarantine, Elasticsearch, and from old snapshots and files.

    It may be killed and run again, beside running loaders; curation waits for it. What comes later of the person stays: run it again.
    """
    if not all(subject) or not re.fullmatch(r"[0-9]+[smhd]", orphans):
        fail("--subject must not be empty" if not all(subject) else f"--orphans {orphans!r} is not an age such as 24h or 2d")
    env = settings()
    if not dry_run and int(orphans[:-1]) * _SECONDS[orphans[-1]] < LEAST_ORPHAN_HOURS * 3600 and loader_runs(env):
        fail(f"--orphans {orphans} would delete files that the batch loader is about to name: stop it first, or leave this option out")
    person = Person({name: pseudonym(env["PRIVACY_KEY"], name) for name in subject}, source)
    copies = _Copies(client_of(env, request_timeout=60), online.stores_in(env))
    with _servers(env), err.status("asking Trino for the tables") as status:
        known = _look(Lake(cursor_of(env), status.update), copies, person)
    _show_found(known)
    if dry_run:
        return
    if known.anything and not yes and not typer.confirm("Erase it for good?"):
        raise typer.Exit(1)
    with _servers(env), err.status("waiting for curation") as status, alone(env["LAKE_CATALOG_URL"], _WAIT) as held:

        def say(doing: str) -> None:
            held()
            status.update(doing)

        lake = Lake(cursor_of(env, SOURCE), say)
        lake.end_earlier()
        lake.make_record()
        _erase(lake, copies, person, _look(lake, copies, person), orphans)
    if known.anything:
        out.print("Run the DAG `curate` now: it makes gold's sums anew. It reads all of bronze once.", markup=False)
        out.print(f"Files that no table names go when they are {orphans} old, with the next erasure or the DAG `maintain`.", markup=False)
    _show_kafka(env)


@dataclass(frozen=True)
class _Copies:
    """What else holds a person, besides the lake."""

    client: Elasticsearch
    stores: Sequence[OnlineStore]


@dataclass(frozen=True)
class _Known:
    """What there is of a person: rows by table, documents by alias and rows of the online store; conditions by table, dead letters that
    do not name them, sources with the number of events, other names; and whether an erasure was begun and not ended."""

    rows: Mapping[str, int]
    documents: Mapping[str, int]
    conditions: Mapping[str, str]
    letters: Sequence[str]
    sources: Mapping[str, int]
    aliases: Sequence[str]
    unfinished: bool

    @property
    def anything(self) -> bool:
        """Whether there is anything to do."""
        return self.unfinished or any(self.rows.values()) or any(self.documents.values())


def _look(lake: Lake, copies: _Copies, person: Person) -> _Known:
    tables = lake.tables()
    conditions = who.conditions(person, tables)
    letters = lake.unnamed_letters(person) if who.BRONZE_LETTERS in tables else []
    return _Known(
        rows=lake.count(conditions),
        documents={**search.count(copies.client, person, letters), **online.count(copies.stores, person)},
        conditions=conditions,
        letters=letters,
        sources=lake.sources(conditions[who.BRONZE]) if who.BRONZE in tables else {},
        aliases=lake.also_called(person) if who.ALIASES in tables else [],
        unfinished=who.AUDIT in tables and lake.unfinished(person),
    )


def _erase(lake: Lake, copies: _Copies, person: Person, known: _Known, orphans: str) -> None:
    """All of it, in the order that makes it safe to be cut off anywhere, and then the report."""
    by, erasure = f"{getpass.getuser()}@{socket.gethostname()}", str(uuid.uuid4())
    gone: dict[str, int] = {}
    documents: Mapping[str, int] = {}
    if known.anything:
        lake.record(who.audit_rows(person, erasure, by, "begun", {**known.rows, **known.documents}))
        # Elasticsearch first: which dead letters hold the person without naming them, only bronze knows.
        documents = search.erase(copies.client, person, known.letters, lake.say)
        gone = lake.delete(known.conditions)
        # After the lake, of which it is a copy: what writes it would bring the person back.
        documents = {**documents, **online.erase(copies.stores, person)}
        lake.clear_emptied()
        sizes = {}
        for table in known.conditions:
            if (known.unfinished or gone.get(table)) and (before := lake.size(table)).snapshots:
                lake.rewrite(table, orphans)
                sizes[table] = (before, lake.size(table))
        _show_gone(gone, documents, sizes)
    lake.record(who.audit_rows(person, erasure, by, "done", {**gone, **documents}))


def _show_found(known: _Known) -> None:
    found = {**known.rows, **known.documents}
    if not any(found.values()):
        out.print("Nothing is left of that subject." if not known.unfinished else "No row is left, but an erasure was cut off: it goes on.")
        return
    _show("what there is of that subject", {name: [f"{number:,}"] for name, number in found.items() if number}, "rows")
    if len(known.sources) > 1:
        told = ", ".join(f"{name} ({number:,})" for name, number in known.sources.items())
        out.print(f"It is of several sources, and may be several people (--source): {told}", markup=False)
    if known.aliases:
        out.print(f"Events of type alias call the same person also: {', '.join(known.aliases)}. Erase these too.", markup=False)


def _show_gone(gone: Mapping[str, int], documents: Mapping[str, int], sizes: Mapping[str, tuple[Size, Size]]) -> None:
    rows = {name: [f"{number:,}", "", ""] for name, number in documents.items()}
    for table, (before, after) in sizes.items():
        rows[table] = [
            f"{gone.get(table, 0):,}",
            f"{before.files:,} -> {after.files:,}",
            f"{before.snapshots:,} -> {after.snapshots:,}",
        ]
    _show("erased from", rows, "rows", "files", "snapshots")


def _show(title: str, rows: Mapping[str, list[str]], *columns: str) -> None:
    table = Table(title, *columns, box=None, pad_edge=False, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, cells in rows.items():
        table.add_row(name, *cells)
    out.print(table)


def loader_runs(env: Mapping[str, str]) -> bool:
    """Whether Kafka knows a batch loader."""
    group = env["BATCH_LOADER_GROUP"]
    try:
        admin = admin_of(env)  # named: once nobody holds it, no answer comes any more
        return bool(admin.describe_consumer_groups([group], request_timeout=10)[group].result().members)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return False
        not_reachable("--orphans asks Kafka whether the batch loader runs, and Kafka is", env["KAFKA_BOOTSTRAP_SERVERS"])


def _show_kafka(env: Mapping[str, str]) -> None:
    """What Kafka still has, and until when: its messages cannot be taken out one by one."""
    try:
        admin = admin_of(env)
        asked = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in _TOPICS], request_timeout=10)
        kept = {resource.name: _kept({name: entry.value for name, entry in future.result().items()}) for resource, future in asked.items()}
    except KafkaException:
        not_reachable("All is erased but what Kafka keeps, and Kafka is", env["KAFKA_BOOTSTRAP_SERVERS"])
    for words in sorted(set(kept.values())):
        out.print(f"Kafka: {', '.join(topic for topic in _TOPICS if kept[topic] == words)} {words}", markup=False)


def _kept(config: Mapping[str, str]) -> str:
    """How long a topic keeps what is in it. A file of a topic is deleted as a whole, so the youngest message in it decides."""
    retention, segment = int(config["retention.ms"]), int(config["segment.ms"])
    if retention < 0:
        return "keeps its messages for ever (retention.ms = -1)"
    days = (retention + segment) / 86_400_000
    return f"keeps its messages for {days:g} days at most (retention.ms = {retention}, segment.ms = {segment})"


@contextmanager
def _servers(env: Mapping[str, str]) -> Iterator[None]:
    """Ends the command with one line where a server is not there or refuses."""
    try:
        yield
    except Busy as busy:
        fail(str(busy))
    except psycopg2.Error as error:
        fail(f"PostgreSQL (LAKE_CATALOG_URL): {in_a_line(error)}")
    except TrinoQueryError as error:
        fail(f"Trino: {' '.join(error.message.split())}: what was begun is not ended, run it again")
    except (Error, HttpError, requests.RequestException):
        not_reachable("Trino", env["TRINO_URL"])
    except Unavailable as error:
        fail(f"{error}: what was begun is not ended, run it again")
    except (TransportError, ApiError, search.Refused) as error:
        fail(f"Elasticsearch at {env['ELASTICSEARCH_URL']}: {error}: what was begun is not ended, run it again")
