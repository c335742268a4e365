"""Scores that were made in batches, for who wants one now: a copy of a table `lake.gold.scores_<scenario>` in the online store.

The copy has the newest moment of the table, as its champions scored it. The lake is what holds: one copy of the API writes the store anew
where the table has another snapshot or other champions, so a rollback or an erasure reaches it as a new score does.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import structlog
from prometheus_client import Gauge

from enrichment_api.customers import Columns
from enrichment_api.looking import Looking
from enrichment_api.online import rows_of
from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line
from headrace.online import Busy, OnlineStore, connect, layout_of
from headrace.scores import CHAMPIONS

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.expressions import BooleanExpression
    from pyiceberg.table import Table

KEY = ("source", "customer_id")
_ROW = np.dtype([("as_of", "M8[us]"), ("scored_at", "M8[us]"), ("score", "f8"), ("version", "i4"), ("model", "S96")])
_NAMES = {"model": "model", "model_version": "version", "score": "score", "as_of": "as_of", "scored_at": "scored_at"}

_log = structlog.get_logger()
_rows = Gauge("enrichment_api_online_scores", "Customers with a score in the online store, as it says itself", ["scores"])
_written_at = Gauge("enrichment_api_online_scores_written_timestamp_seconds", "When they were written, as it says itself", ["scores"])


class Score(msgspec.Struct):
    """What a model said of a customer as of a moment."""

    model: str
    version: int
    score: float
    as_of: datetime
    scored_at: datetime


class NotForCustomers(Exception):
    """A table that has no score for each customer."""


def store(url: str, table: str, timeout: float) -> OnlineStore:
    """The scores of a table in the Redis at `url`."""
    return OnlineStore(connect(url, timeout), table, layout_of(_ROW), _ROW.itemsize)


def read(of: OnlineStore, source: str, customer_id: str) -> Score | None:
    """The customer's newest score; None where there is none. Raises Unavailable."""
    [found] = of.read([(source, customer_id)])
    if found is None:
        return None
    [row] = np.frombuffer(found, _ROW)
    moments = (row[name].item().replace(tzinfo=UTC) for name in ("as_of", "scored_at"))
    return Score(row["model"].decode(), int(row["version"]), float(row["score"]), *moments)


class ScoresCopy(Looking):
    """Keeps the store in step with one table of `lake.gold`. Where it cannot be read, the store stays as it is; the log says why, once."""

    def __init__(self, open_catalog: "Callable[[], Catalog]", of: OnlineStore, table: tuple[str, str], seconds: float) -> None:
        super().__init__(table[1], seconds)
        self._open_catalog, self._of, self._table = open_catalog, of, table
        self._catalog: Catalog | None = None
        self._trouble: str | None = None

    def look(self) -> None:
        """Write the store anew where the table has changed."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            self._take()
            trouble = None
        except Busy:
            trouble = self._trouble  # another copy writes
        except NoSuchTableError:
            trouble = "there is no such table in the lake: the DAG `score` makes it"
        except (Unavailable, NotForCustomers) as error:
            trouble = str(error)
        except Exception as error:  # of whatever kind: what is in the store is still good
            self._catalog, trouble = None, f"the lake cannot be read: {in_a_line(error)}"
        if trouble and trouble != self._trouble:
            _log.warning("scores are not copied to the online store", table=".".join(self._table), why=trouble)
        self._trouble = trouble

    def _take(self) -> None:
        if self._catalog is None:
            self._catalog = self._open_catalog()
        table = self._catalog.load_table(self._table)
        snapshot = table.current_snapshot()
        champions = table.properties.get(CHAMPIONS, "{}")
        version = f"{table.metadata.table_uuid}/{snapshot and snapshot.snapshot_id}/{champions}"
        written = self._of.written()
        if written is None or written.version != version:
            written = self._of.write(rows_of(_parts(table, json.loads(champions))), version)
            _log.info("scores were copied to the online store", table=".".join(self._table), customers=written.rows)
        _rows.labels(self._table[1]).set(written.rows)
        _written_at.labels(self._table[1]).set(written.at)


def _parts(table: "Table", champions: Mapping[str, int]) -> Iterator[Columns]:
    """The newest rows of the champions, a batch at a time."""
    from pyiceberg.expressions import And, Or

    names = set(table.schema().column_names)
    if missing := sorted(set(KEY) - names):
        raise NotForCustomers(f"it has no column {' and '.join(missing)}: only scores of customers are looked up")
    if others := sorted(names - {*KEY, *_NAMES, "run_id"}):
        raise NotForCustomers(f"it has many scores of a customer, by {' and '.join(others)}: only one each is looked up")
    if not champions:
        return
    theirs: list[BooleanExpression] = [And(_equal("model", name), _equal("model_version", version)) for name, version in champions.items()]
    wanted: BooleanExpression = reduce(Or, theirs)
    moments = (batch.column("as_of") for batch in table.scan(wanted, ("as_of",)).to_arrow_batch_reader())
    newest = max((found for column in moments if (found := _newest(column)) is not None), default=None)
    if newest is None:
        return
    fields = (*KEY, *_NAMES)
    for batch in table.scan(And(wanted, _equal("as_of", newest.isoformat())), fields).to_arrow_batch_reader():
        rows = np.zeros(len(batch), _ROW)
        for name, of in _NAMES.items():
            rows[of] = [_plain(each) for each in batch.column(name).to_pylist()]
        yield zip(*(batch.column(name).to_pylist() for name in KEY), strict=True), rows


def _equal(column: str, value: str | int) -> "BooleanExpression":
    from pyiceberg.expressions import EqualTo, Reference
    from pyiceberg.expressions.literals import literal

    return EqualTo(term=Reference(column), value=literal(value))


def _newest(column: Any) -> datetime | None:
    import pyarrow.compute as pc

    found: datetime | None = pc.max(column).as_py()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return value.encode() if isinstance(value, str) else value
