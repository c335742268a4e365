"""What the account of a run is decided by: one SQL query over the ledger and over everything that was found. Pure but for `Checker`.

Each sending in the ledger says, by its kind, at which stations its event must stand and how often (`PLAN`). The query counts both sides for
each (event, store, station) and compares, so it needs no DISTINCT that could hide a second row:

- lost: answered with success, and there are fewer than there must be
- doubled: there are more than were sent
- phantom: it was refused, or never sent, and is there
- corrupt: it is where it belongs and its payload has another hash
- wrong place: it was sent, and stands at a station where it does not belong
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import stamina
from trino.exceptions import TrinoQueryError

from headrace.lake import LakeSettings, load_catalog
from verify.events import Kind
from verify.ledger import Outcome, Row

LAKE, SEARCH = "lake", "search"
ONCE, EACH = "once", "each"  # an event however often it was sent; every sending
PAYLOAD, CANONICAL, NOT_HASHED = "payload", "canonical", "none"


class Station(NamedTuple):
    """Where events of a kind must stand. `*` in the name is the event's detail: its type, or the reason."""

    kind: Kind
    store: str
    name: str
    rule: str
    hashed: str
    refusal: int = 0  # the status of a request that is refused as a whole and kept all the same


def _arrives(kind: Kind) -> list[Station]:
    return [
        Station(kind, LAKE, "silver.*", ONCE, PAYLOAD),
        Station(kind, LAKE, "silver.events", ONCE, NOT_HASHED),
        Station(kind, SEARCH, "events", ONCE, CANONICAL),
    ]


def _dead_letter(kind: Kind, service: str, refusal: int = 0) -> list[Station]:
    return [Station(kind, store, f"dead_letters.{service}.*", EACH, PAYLOAD, refusal) for store in (LAKE, SEARCH)]


PLAN = (
    *_arrives(Kind.GOOD),
    *_arrives(Kind.ENRICHMENT_FAILS),
    *_dead_letter(Kind.BAD, "collector"),
    *_dead_letter(Kind.INVALID, "enricher"),
    *_dead_letter(Kind.UNPARSEABLE, "collector", refusal=400),
    Station(Kind.CONFLICT, LAKE, "quarantine.*", EACH, PAYLOAD),  # Elasticsearch keeps the first
    Station(Kind.ABSURD, LAKE, "quarantine.*", EACH, PAYLOAD),
    Station(Kind.ABSURD, SEARCH, "events", ONCE, CANONICAL),  # it is curation that refuses it
)


def _values(rows: Iterable[Sequence[str | int]]) -> str:
    return "VALUES " + ", ".join("(" + ", ".join(str(v) if isinstance(v, int) else f"'{v}'" for v in row) + ")" for row in rows)


def verdict_query(ledger: str, found: str) -> str:
    """The query. `ledger` is a relation (id, kind, detail, payload_sha256, search_sha256, outcome, status), one row for each sending of an
    event; `found` one of (id, store, station, sha256), one row for each that was found. One row comes for each store.
    """
    return f"""
WITH plan (kind, store, station, rule, hashed, refusal) AS ({_values(PLAN)}),
sides AS (
    SELECT l.id, p.store, replace(p.station, '*', l.detail) AS station, p.rule,
        CASE p.hashed WHEN '{PAYLOAD}' THEN l.payload_sha256 WHEN '{CANONICAL}' THEN l.search_sha256 END AS sha256,
        IF(l.outcome = '{Outcome.OK}' OR (l.outcome = '{Outcome.FAIL}' AND l.status > 0 AND l.status = p.refusal), 1, 0) AS sure,
        IF(l.outcome = '{Outcome.INFO}', 1, 0) AS unsure,
        1 AS sent, 0 AS found
    FROM {ledger} l JOIN plan p ON p.kind = l.kind
    UNION ALL
    SELECT id, store, station, NULL, sha256, 0, 0, 0, 1 FROM {found}
),
same AS (
    SELECT id, store, station, sha256, max(rule) AS rule, sum(sure) AS sure, sum(unsure) AS unsure, sum(sent) AS sent, sum(found) AS found
    FROM sides GROUP BY id, store, station, sha256
),
places AS (
    SELECT id, store, station, sum(sent) > 0 AS planned, sum(found) AS found, sum(IF(sent > 0, 0, found)) AS others,
        IF(max(rule) = '{ONCE}', least(sum(sure), 1), sum(sure)) AS fewest,
        IF(max(rule) = '{ONCE}', least(sum(sure) + sum(unsure), 1), sum(sure) + sum(unsure)) AS most
    FROM same GROUP BY id, store, station
),
events AS (
    SELECT id, store,
        sum(IF(planned, greatest(fewest - found, 0), 0)) AS missing,
        sum(IF(planned AND most > 0, greatest(found - most, 0), 0)) AS doubled,
        sum(IF(planned AND most = 0, found, 0)) AS refused,
        sum(IF(planned AND most > 0, others, 0)) AS corrupt,
        sum(IF(planned, 0, found)) AS astray,
        coalesce(max(IF(planned, most)), 0) > 0 AS expected
    FROM places GROUP BY id, store
),
verdicts AS (
    SELECT id, store, greatest(missing - IF(expected, astray, 0), 0) AS lost, doubled, corrupt,
        refused + IF(expected, 0, astray) AS phantom, IF(expected, astray, 0) AS wrong_place
    FROM events
)
SELECT store, sum(lost), sum(doubled), sum(phantom), sum(corrupt), sum(wrong_place),
    slice(array_agg(id || CASE WHEN lost > 0 THEN ' lost' WHEN doubled > 0 THEN ' doubled' WHEN phantom > 0 THEN ' phantom'
        WHEN corrupt > 0 THEN ' corrupt' ELSE ' wrong place' END ORDER BY id)
        FILTER (WHERE lost + doubled + phantom + corrupt + wrong_place > 0), 1, {_EXAMPLES})
FROM verdicts GROUP BY store ORDER BY store"""


_EXAMPLES = 20


@dataclass(frozen=True)
class Verdict:
    """Rows of each violation in one store, and some of the events concerned."""

    store: str
    lost: int = 0
    doubled: int = 0
    phantom: int = 0
    corrupt: int = 0
    wrong_place: int = 0
    examples: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.phantom or self.corrupt or self.wrong_place)

    def __add__(self, other: "Verdict") -> "Verdict":
        numbers = {name: getattr(self, name) + getattr(other, name) for name in VIOLATIONS}
        return Verdict(self.store, **numbers, examples=(*self.examples, *other.examples)[:_EXAMPLES])


VIOLATIONS = ("lost", "doubled", "phantom", "corrupt", "wrong_place")


def verdicts(rows: Iterable[Sequence[Any]]) -> dict[str, Verdict]:
    """The answer of the query, by store; a store that neither side knows has a verdict without violations."""
    found = {store: Verdict(store) for store in (LAKE, SEARCH)}
    for store, lost, doubled, phantom, corrupt, wrong_place, examples in rows:
        found[store] += Verdict(store, lost, doubled, phantom, corrupt, wrong_place, tuple(examples or ()))
    return found


def found_query(source: str, typed: Mapping[str, str]) -> str:
    """Everything of `source` at every station: (id, store, station, sha256). `typed` is event type -> table of silver.

    A dead letter of a request that could not be read has no source and no id: both are taken from its payload.
    """
    run = source.rpartition("/")[2]
    of_source = f"source = '{source}'"
    typed_rows = [
        f"SELECT id, '{LAKE}', 'silver.{type}', {_sha256('to_utf8(data_json)')} FROM lake.silver.\"{table}\" WHERE {of_source}"
        for type, table in typed.items()
    ]
    canonical = _sha256("to_utf8(json_format(json_parse(data)))")
    return " UNION ALL ".join(
        [
            f"SELECT id, '{LAKE}' AS store, 'silver.events' AS station, CAST(NULL AS varchar) AS sha256 "
            f"FROM lake.silver.events WHERE {of_source}",
            *typed_rows,
            f"SELECT id, '{LAKE}', 'quarantine.' || reason, {_sha256('to_utf8(data)')} FROM lake.silver.quarantine WHERE {of_source}",
            _letters(LAKE, "lake.silver.dead_letters", source, run),
            _letters(SEARCH, "elasticsearch.default.dead_letters_all", source, run),
            f"SELECT id, '{SEARCH}', 'events', {canonical} FROM elasticsearch.default.events_all WHERE {of_source}",
        ]
    )


def _letters(store: str, table: str, source: str, run: str) -> str:
    """The collector keeps the event as sent; the enricher its message, in which the data stands as sent."""
    payload = "IF(payload_encoding = 'base64', from_base64(payload), to_utf8(payload))"
    data = """to_utf8(regexp_extract(payload, '(?s)"data":(.*),"receipt":', 1))"""
    return (
        f"SELECT coalesce(id, regexp_extract(payload, '{run}-[0-9]+'), payload), '{store}', 'dead_letters.' || service || '.' || reason, "
        f"{_sha256(f'''IF(service = 'enricher', {data}, {payload})''')} "
        f"FROM {table} WHERE source = '{source}' OR (source IS NULL AND payload LIKE '%{run}-%')"
    )


def _sha256(of: str) -> str:
    return f"lower(to_hex(sha256({of})))"


_LEDGER_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "kind", "detail", "payload_sha256", "search_sha256", "outcome")] + [("status", pa.int32())]
)
_CHUNK = 100_000
_ROWS_AT_ONCE = 1_000_000  # of both sides: what Trino compares within its memory


def ledger_table(rows: Iterable[Row]) -> pa.Table:
    """Sendings as the query reads them."""
    columns = zip(
        *(
            (r.event.id, r.event.kind, r.event.detail, r.event.payload_sha256, r.event.search_sha256, r.outcome.value, r.status)
            for r in rows
        ),
        strict=True,
    )
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _LEDGER_SCHEMA, strict=False)]
    return pa.table(arrays, schema=_LEDGER_SCHEMA) if arrays else _LEDGER_SCHEMA.empty_table()


def _passing(error: Exception) -> bool:
    """Trino keeps connections to PostgreSQL, and finds out by a failing query that one was broken by a fault."""
    return isinstance(error, TrinoQueryError) and error.error_type != "USER_ERROR"


class Checker:
    """The account of one run, in temporary tables of the lake. `cursor` is Trino's, `settings` say where the lake is."""

    def __init__(self, cursor: Any, settings: LakeSettings, source: str) -> None:
        self._cursor = cursor
        self._settings = settings
        self._source = source
        self._name = source.rpartition("/")[2].replace("-", "_")

    def decide(self, ledger: Iterable[Row]) -> dict[str, Verdict]:
        """Load the ledger, collect what is found, compare."""
        with self._tables(ledger) as (sent, found):
            slices = 1 + (self._count(sent) * 3 + self._count(found)) // _ROWS_AT_ONCE
            answer: list[Sequence[Any]] = []
            for number in range(slices):
                # An event is in one slice with all that is known of it, so each slice is an account of its own.
                here = f"mod(abs(from_big_endian_64(xxhash64(to_utf8(id)))), {slices}) = {number}"
                answer += self._rows(verdict_query(f"(SELECT * FROM {sent} WHERE {here})", f"(SELECT * FROM {found} WHERE {here})"))
            return verdicts(answer)

    def dead_letters_by_reason(self) -> dict[str, int]:
        """Rows of silver by service and reason."""
        letters = _letters(LAKE, "lake.silver.dead_letters", self._source, self._source.rpartition("/")[2])
        rows = self._rows(f"SELECT station, count(*) FROM ({letters}) AS t (id, store, station, sha256) GROUP BY station ORDER BY station")
        return {station.removeprefix("dead_letters."): count for station, count in rows}

    def bronze(self) -> tuple[int, int]:
        """Rows of bronze, and identities among them."""
        each = f"SELECT id, count(*) AS rows FROM lake.bronze.events WHERE source = '{self._source}' GROUP BY id"
        [[rows, identities]] = self._rows(f"SELECT coalesce(sum(rows), 0), count(*) FROM ({each})")
        return rows, identities

    def _typed(self) -> dict[str, str]:
        fixed = ("events", "quarantine", "dead_letters")
        tables = [row[0] for row in self._rows("SELECT table_name FROM lake.information_schema.tables WHERE table_schema = 'silver'")]
        return {name.removeprefix("event_"): name for name in tables if name not in fixed}

    @contextmanager
    def _tables(self, ledger: Iterable[Row]) -> Iterator[tuple[str, str]]:
        sent, found = f"verify.ledger_{self._name}", f"verify.found_{self._name}"
        catalog = load_catalog(self._settings)
        catalog.create_namespace_if_not_exists("verify")
        try:
            table = catalog.create_table(sent, _LEDGER_SCHEMA)
            rows = iter(ledger)
            while chunk := list(islice(rows, _CHUNK)):
                table.append(ledger_table(chunk))
            self._rows(f"CREATE TABLE lake.{found} AS {found_query(self._source, self._typed())}")
            yield f"lake.{sent}", f"lake.{found}"
        finally:
            for name in (sent, found):
                self._rows(f"DROP TABLE IF EXISTS lake.{name}")

    def _count(self, table: str) -> int:
        return int(self._rows(f"SELECT count(*) FROM {table}")[0][0])

    @stamina.retry(on=_passing, attempts=6, wait_initial=1, timeout=None)
    def _rows(self, sql: str) -> list[Sequence[Any]]:
        self._cursor.execute(sql)
        return list(self._cursor.fetchall())


def files_gone(settings: LakeSettings) -> int:
    """Data files that the tables of bronze name and the store does not have."""
    catalog, gone = load_catalog(settings), 0
    for name in ("bronze.events", "bronze.dead_letters"):
        table = catalog.load_table(name)
        gone += sum(not table.io.new_input(path).exists() for path in table.inspect.data_files()["file_path"].to_pylist())
    return gone
