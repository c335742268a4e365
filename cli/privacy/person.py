"""Where a person stands in the lake and in Elasticsearch: the conditions by which their rows are found, and what is done to a table. Pure.

A person is the subjects by which sources name them. Where the tracking plan hashes the attribute `subject`, its keyed hash stands there
instead, so both are looked for.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dags.upkeep.tables import quoted

BRONZE, BRONZE_LETTERS = "lake.bronze.events", "lake.bronze.dead_letters"
IDENTITIES, LETTERS = "lake.silver.events", "lake.silver.dead_letters"
ACTIVITY, SESSIONS = "lake.gold.fact_activity", "lake.gold.fact_session"
TRUTH = "lake.gold.prediction_truth"
ALIASES = "lake.silver.alias"
AUDIT = "lake.gold.erasures"
# Rows of gold that stand for nothing any more, where the person was all that there was: the next build does not look there.
EMPTIED: Mapping[str, tuple[str, str]] = {
    "lake.gold.mart_daily_sales": ("lake.gold.fact_purchase", "(source, sales_date) NOT IN (SELECT source, purchased_on FROM {of})"),
    "lake.gold.mart_retention": (
        "lake.gold.fact_purchase",
        "(source, activity_month) NOT IN (SELECT source, date_trunc('month', purchased_on) FROM {of})",
    ),
    "lake.gold.mart_funnel": (SESSIONS, "(source, funnel_date) NOT IN (SELECT source, started_on FROM {of} WHERE views > 0)"),
    "lake.gold.mart_variants": (TRUTH, "(model, model_version, variant) NOT IN (SELECT model, model_version, variant FROM {of})"),
    "lake.gold.mart_model_weeks": (
        TRUTH,
        "(model, model_version, variant, week) NOT IN"
        " (SELECT model, model_version, variant, CAST(date_trunc('week', predicted_at) AS date) FROM {of})",
    ),
}
# What is executed on a table of which rows were deleted. Files that have deletions are written anew, and no others; manifests leave out
# what they said of removed files (least and greatest values among it); history goes with its files, and so do files that nobody names.
REWRITE = ("optimize(file_size_threshold => '1B')", "optimize_manifests")
FORGET = "expire_snapshots(retention_threshold => '0s')"
SWEEP = "remove_orphan_files(retention_threshold => '{age}')"
_SENDING = "source, id, type, time, received_at"


@dataclass(frozen=True)
class Person:
    """Who is erased: subjects as they are sent, each with its keyed hash; of one source, or of all."""

    hashes: Mapping[str, str]
    source: str | None = None

    @property
    def names(self) -> list[str]:
        """Everything that stands for the person where a subject stands."""
        return [*self.hashes, *self.hashes.values()]


def conditions(person: Person, tables: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Table -> SQL that is true for the rows of the person, for each table that can hold some, in the order in which they are to be
    deleted: a table by which others are found comes after these. `tables`: name of each table of the lake -> its columns."""
    found = {name: _own(person, name, columns) for name, columns in tables.items() if {"subject", "customer_id"} & columns}
    if IDENTITIES in tables and BRONZE in tables:
        found[IDENTITIES] = f"({_SENDING}) IN (SELECT {_SENDING} FROM {quoted(BRONZE)} WHERE {found[BRONZE]})"
    if SESSIONS in found and ACTIVITY in found:
        # A visit of the person, of which other events name nobody: what is left of it is put together again by the next build.
        found[SESSIONS] += f" OR visitor_key IN (SELECT visitor_key FROM {quoted(ACTIVITY)} WHERE {found[ACTIVITY]})"
    return {name: found[name] for name in sorted(found, key=_order)}


def _order(name: str) -> tuple[int, bool, str]:
    """Silver before gold, which is made of it; bronze last, by which a run that was cut off finds the rest. Identities right before it: as
    long as they are there, no curation writes rows of theirs a second time."""
    layer = "identities" if name == IDENTITIES else name.split(".")[1]
    return ["silver", "gold", "identities", "bronze"].index(layer), name != SESSIONS, name


def _own(person: Person, name: str, columns: frozenset[str]) -> str:
    column = "subject" if "subject" in columns else "customer_id"
    named = f"{column} IN ({', '.join(map(literal, person.names))})"
    if person.source is not None:
        named += f" AND source = {literal(person.source)}"
    return f"({named}) OR ({unnamed(person)})" if name in (BRONZE_LETTERS, LETTERS) else named


def unnamed(person: Person) -> str:
    """True for a dead letter whose subject could not be read, in whose payload one stands as a text of JSON."""
    payload = "IF(payload_encoding = 'base64', from_utf8(TRY(from_base64(payload))), payload)"
    texts = sorted({json.dumps(subject, ensure_ascii=ascii) for subject in person.hashes for ascii in (True, False)})
    stands = " OR ".join(f"strpos({payload}, {literal(text)}) > 0" for text in texts)
    of_source = f" AND (source IS NULL OR source = {literal(person.source)})" if person.source is not None else ""
    return f"subject IS NULL AND ({stands}){of_source}"


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def documents(person: Person, letters: Sequence[str] = ()) -> dict[str, Any]:
    """Elasticsearch's query for the person's documents; of the dead letters also those with the ids `letters`."""
    named: list[dict[str, Any]] = [{"terms": {"subject": person.names}}]
    if person.source is not None:
        named.append({"term": {"source": person.source}})
    either: list[dict[str, Any]] = [{"bool": {"filter": named}}]
    if letters:
        either.append({"terms": {"dead_letter_id": list(letters)}})
    return {"bool": {"should": either, "minimum_should_match": 1}}


def audit_rows(person: Person, erasure: str, by: str, state: str, found: Mapping[str, int]) -> str:
    """The statement that records a state of an erasure (`begun`, `done`): a row for each subject, of which only the keyed hash is kept."""
    source = "NULL" if person.source is None else literal(person.source)
    rows = (
        f"({literal(erasure)}, current_timestamp, {literal(by)}, {literal(hashed)}, {source}, {literal(state)},"
        f" {sum(found.values())}, {literal(json.dumps(dict(found)))})"
        for hashed in person.hashes.values()
    )
    return f"INSERT INTO {quoted(AUDIT)} VALUES {', '.join(rows)}"


MAKE_AUDIT = (
    "CREATE SCHEMA IF NOT EXISTS lake.gold",
    f"""CREATE TABLE IF NOT EXISTS {quoted(AUDIT)} (
    erasure_id varchar, at timestamp(6) with time zone, requested_by varchar, subject_hash varchar, source varchar, state varchar,
    found bigint, found_in varchar)""",
)


def unfinished(person: Person) -> str:
    """The statement that counts erasures of the person which were begun and not ended, by that run or a later one."""
    hashed = ", ".join(map(literal, person.hashes.values()))
    return (
        f"SELECT count(*) FROM (SELECT subject_hash FROM {quoted(AUDIT)} WHERE subject_hash IN ({hashed}) GROUP BY subject_hash, source"
        " HAVING max(at) FILTER (WHERE state = 'begun') > coalesce(max(at) FILTER (WHERE state = 'done'), from_unixtime(0)))"
    )
