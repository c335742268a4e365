"""Keeps the customers' states as fresh as the lake has them. Reads Iceberg in a background thread; a request never waits for it."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Gauge

from enrichment_api.customers import Columns, Customers, States
from enrichment_api.looking import Looking
from enrichment_api.online import OnlineCopy
from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line
from headrace.features import STATE, states_of

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

TABLE = ("gold", "customer_features")

_log = structlog.get_logger()
_available = Gauge(
    "enrichment_api_customer_features_available", "1 where lake.gold.customer_features could be read at the last look, else 0"
)
_loaded = Gauge("enrichment_api_customers", "Customers whose state is in memory")
_loaded_at = Gauge("enrichment_api_customer_features_loaded_timestamp_seconds", "When the states in memory were read")


class Refresher(Looking):
    """`customers` is the latest snapshot that could be read, without any customer until then; with a `copy`, it reads the online store.

    Where the table is absent or the lake cannot be reached, the snapshot stays as it is, and the log says so once for each change.
    """

    def __init__(
        self, open_catalog: "Callable[[], Catalog]", seconds: float, table: tuple[str, str] = TABLE, copy: OnlineCopy | None = None
    ) -> None:
        super().__init__("customer-features", seconds)
        self.customers: States = copy.customers if copy else Customers.none()
        self._copy = copy
        self._open_catalog = open_catalog
        self._catalog: Catalog | None = None
        self._table = table
        self._version: object = None  # which snapshot of which table is in memory
        self._trouble: str | None = ""  # what kept us from reading at the last look; "" before the first look

    def look(self) -> None:
        """Read the table where it changed since the last time. Raises nothing: scoring goes on with what there is."""
        from pyiceberg.exceptions import NoSuchTableError

        try:
            self._read()
            trouble = None
        except NoSuchTableError:
            trouble = self._nothing("lake.gold.customer_features is not there yet")
        except Unavailable as error:
            self._catalog, trouble = None, str(error)
        except Exception as error:  # of whatever kind: the lake's trouble must not become that of a request
            self._catalog, trouble = None, f"the lake cannot be read: {in_a_line(error)}"
        _available.set(trouble is None)
        _loaded.set(len(self.customers))
        if trouble != self._trouble and trouble is not None:
            known = f"the {len(self.customers)} customers in memory stay" if len(self.customers) else "every customer is new until then"
            _log.warning("customer features unavailable", why=trouble, so=known)
        self._trouble = trouble

    def _nothing(self, why: str) -> str:
        """There is no table: nobody is known. Gives why, or what keeps us from saying so."""
        try:
            if self._copy is None:
                self.customers = Customers.none()
            else:
                self._copy.take(tuple, "none")
            self._version = None
        except Unavailable as error:
            return str(error)
        return why

    def _read(self) -> None:
        if self._catalog is None:
            self._catalog = self._open_catalog()
        table = self._catalog.load_table(self._table)
        snapshot = table.current_snapshot()
        version = (table.metadata.table_uuid, snapshot and snapshot.snapshot_id)
        if version == self._version:
            return
        if self._copy is None:
            self.customers = Customers.of(_parts(table))
        elif not self._copy.take(lambda: _parts(table), "/".join(map(str, version))):
            return
        self._version = version
        _loaded_at.set_to_current_time()
        _log.info("customer features loaded", customers=len(self.customers), snapshot=snapshot and snapshot.snapshot_id)


def _parts(table: "Table") -> Iterator[Columns]:
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what a table took: 30 MB more, for reading now and then
    scan = table.scan(selected_fields=("source", "customer_id", *(STATE.names or ())))
    for batch in scan.to_arrow_batch_reader():
        yield zip(batch.column("source").to_pylist(), batch.column("customer_id").to_pylist(), strict=True), states_of(batch)
