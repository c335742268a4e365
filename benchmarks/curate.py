"""`python -m benchmarks.curate`: what a curation costs, by the size of silver and of the input, and by the rule of parallelism or without.

Two lakes of their own (a catalog database and a warehouse folder each) on the running platform, one with a small silver and one with a
large: Spark itself writes their history, as a run would have left it, and PyArrow what is new in bronze. Each figure is the median of some
runs of `python -m dags.curation.main`, small and large in turns, so that both sides meet the same machine. Processor seconds and memory are
the kernel's account of the run with all its children.
"""

import argparse
import json
import os
import statistics
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pyarrow as pa
import pyarrow.compute as pc
from minio import Minio
from minio.deleteobjects import DeleteObject
from pyiceberg.catalog.sql import SqlCatalog
from rich.console import Console

from benchmarks.figures import keep, show
from benchmarks.measured import Done, measured
from headrace.lake import LakeSettings, load_catalog
from headrace.settings import use_env_file
from loaders.batch.rows import EVENTS
from loaders.batch.table import open_table
from runtime import java

_ROOT = Path(__file__).resolve().parent.parent
_PYTHON = _ROOT / ".runtime/venvs/spark/bin/python"
_HISTORY_OF_A_COMMIT = 1_000_000
_TYPE = "button_click"
# Written in Spark's environment: the rows of silver that runs of long ago left, and the watermark that says so.
_HISTORY = """
import json, os, sys
from dags.curation import lake, main
from dags.curation.options import options
from dags.curation.parallelism import Parallelism
from dags.curation.plan import read_plan, tables
from dags.curation.session import close_session, open_session, start_jvm
of = options(os.environ)
by_type = tables(read_plan(of.schemas))
start_jvm(of)
spark = open_session(of, Parallelism(1, of.limits.cores, 2 * of.limits.cores, 128 << 20))
lake.make_fixed_tables(spark)
lake.make_typed_tables(spark, by_type.values())
count, at_once = int(sys.argv[1]), int(sys.argv[2])
moment = "timestamp_seconds(1790000000 + id div 50)"
attributes = f"'benchmark' source, uuid() id, '{type}' type, {{moment}} time, {{moment}} received_at, sha2(string(id), 256) content_hash"
for first in range(0, count, at_once):
    of_range = f"range({{first}}, {{min(count, first + at_once)}}, 1, {{of.limits.cores}})"
    made = spark.sql(f"SELECT {{attributes}} FROM {{of_range}}")
    lake.append(made.selectExpr("*", "xxhash64(source, id) identity_hash"), lake.EVENTS)
written = [lake.EVENTS, lake.QUARANTINE, *(f"{{lake.SILVER}}.{{table.name}}" for table in by_type.values())]
bronze = lake._iceberg(spark, f"{{lake.BRONZE}}.events").currentSnapshot().snapshotId()
lake.remember(spark, lake.EVENTS, {{lake.WATERMARK: str(bronze), lake.COMPLETED: lake.snapshots(spark, written)}})
close_session(spark)
"""
# The same curation with Spark's own numbers instead of the rule's.
_BY_DEFAULTS = """
import runpy
from dags.curation import parallelism, session
open_session = session.open_session
def with_defaults(of, parallel):
    return open_session(of, parallelism.Parallelism(1, of.limits.cores, 200, 128 << 20))
session.open_session = with_defaults
runpy.run_module("dags.curation.main", run_name="__main__", alter_sys=True)
"""


class _Site:
    """One lake, and curations of it."""

    def __init__(self, env: Mapping[str, str], catalog: SqlCatalog) -> None:
        self._env = {**os.environ, **env}
        self._catalog = catalog
        self._offset = 0
        self._table: Any = None

    def land(self, count: int, files: int = 1) -> None:
        """New events in bronze, in as many commits as files."""
        if self._table is None:
            self._catalog.create_namespace_if_not_exists("bronze")
            self._table = open_table(self._catalog, "bronze.events", EVENTS, "received_at")
        for part in range(files):
            self._table.append(self._events(count // files + (part < count % files)))

    def prepare(self, history: int) -> None:
        """Silver as runs over `history` events left it, up to what is in bronze now."""
        self._run("-c", _HISTORY.format(type=_TYPE), str(history), str(_HISTORY_OF_A_COMMIT))

    def curate(self, by_rule: bool = True) -> dict[str, float]:
        """One run: seconds, processor seconds, memory, and what it says itself."""
        ran = self._run(*(("-m", "dags.curation.main") if by_rule else ("-c", _BY_DEFAULTS)))
        done = json.loads(ran.out.splitlines()[-1])
        return {
            "seconds": ran.seconds,
            "own_seconds": done["seconds"],
            "processor_seconds": ran.processor_seconds,
            "mb": ran.mb,
            "read": done["read"],
        }

    def _run(self, *arguments: str) -> Done:
        return measured([str(_PYTHON), *arguments], self._env)

    def _events(self, count: int) -> pa.Table:
        now = datetime.now(UTC)
        numbers = pa.array(range(self._offset, self._offset + count), pa.int64())
        self._offset += count
        ids = pa.array([str(uuid.uuid4()) for _ in range(count)])
        moments = pa.array([now - timedelta(seconds=5)] * count, pa.timestamp("us", tz="UTC"))
        data = pc.binary_join_element_wise(
            '{"button_id":"buy-', pc.cast(numbers, pa.string()), '","text":"Buy now","url":"https://e.com"}', ""
        )
        constant = {
            "source": "benchmark",
            "type": _TYPE,
            "dataschema": f"{_TYPE}/1-0-0",
            "enrichment": "{}",
            "kafka_topic": "events.enriched",
        }
        columns: dict[str, pa.Array] = {
            "id": ids,
            "data": data,
            "kafka_offset": numbers,
            "kafka_partition": pa.array([0] * count, pa.int32()),
        }
        columns |= {name: pa.repeat(value, count) for name, value in constant.items()}
        columns |= dict.fromkeys(("time", "received_at", "enriched_at", "loaded_at"), moments)
        return pa.table({f.name: columns.get(f.name, pa.nulls(count, f.type)) for f in EVENTS}, schema=EVENTS)


@contextmanager
def _site(cores: int) -> Iterator[_Site]:
    name = f"benchmark_{uuid.uuid4().hex[:8]}"
    postgres, warehouse = os.environ["POSTGRES_URL"], os.environ["LAKE_WAREHOUSE"]
    bucket = warehouse.removeprefix("s3://").split("/")[0]
    here = {
        "JAVA17_HOME": str(java.home()),
        "SPARK_JARS": str(_ROOT / ".runtime/servers/spark-jars"),
        "SCHEMAS_DIR": str(_ROOT / "schemas"),
        "LAKE_CATALOG_URL": f"{postgres}/{name}",
        "LAKE_WAREHOUSE": f"s3://{bucket}/{name}",
        "CURATION_CORES": str(cores),
    }
    os.environ["STATE_DIR"] = str(_ROOT / os.environ["STATE_DIR"])
    _sql(postgres, f'CREATE DATABASE "{name}"')
    os.environ.update(here)
    catalog = load_catalog(LakeSettings.load())
    os.environ["LAKE_WAREHOUSE"] = warehouse
    try:
        yield _Site(here, catalog)
    finally:
        catalog.engine.dispose()
        _sql(postgres, f'DROP DATABASE "{name}" WITH (FORCE)')
        host = os.environ["S3_ENDPOINT"].split("//")[1]
        minio = Minio(host, os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"], secure=False)
        objects = minio.list_objects(bucket, f"{name}/", recursive=True)
        for error in minio.remove_objects(bucket, (DeleteObject(str(each.object_name)) for each in objects)):
            raise SystemExit(f"headrace: {error}")


def _sql(url: str, statement: str) -> None:
    with closing(psycopg2.connect(f"{url}/postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement)


def _median(runs: list[dict[str, float]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def _cost_by_size(small: _Site, large: _Site, new: int, repeats: int) -> dict[str, float]:
    """The same number of new events on both, in turns; the first of each warms up."""
    runs: dict[str, list[dict[str, float]]] = {"small": [], "large": []}
    for _ in range(repeats + 1):
        for name, site in (("small", small), ("large", large)):
            site.land(new)
            runs[name].append(site.curate())
    found: dict[str, float] = {}
    for figure in ("own_seconds", "processor_seconds", "mb"):
        of = {name: _median(each[1:], figure) for name, each in runs.items()}
        found |= {f"new_events_on_{name}_{figure}": round(value, 1) for name, value in of.items()}
        found[f"large_to_small_{figure}_ratio"] = round(of["large"] / of["small"], 2)
    return found


def _rule_and_defaults(site: _Site, sizes: Mapping[str, tuple[int, int]], repeats: int) -> dict[str, float]:
    """The same input by the rule and by Spark's defaults, in turns; the first of each warms up."""
    found: dict[str, float] = {}
    for name, (count, files) in sizes.items():
        runs: dict[bool, list[dict[str, float]]] = {True: [], False: []}
        for _ in range(repeats + 1):
            for by_rule in (True, False):
                site.land(count, files)
                runs[by_rule].append(site.curate(by_rule))
        runs = {by_rule: of[1:] for by_rule, of in runs.items()}
        for figure in ("own_seconds", "processor_seconds"):
            rule, defaults = _median(runs[True], figure), _median(runs[False], figure)
            found |= {f"{name}_rule_{figure}": round(rule, 1), f"{name}_defaults_{figure}": round(defaults, 1)}
            found[f"{name}_defaults_to_rule_{figure}_ratio"] = round(defaults / rule, 2)
        found[f"{name}_events"] = count
        found[f"{name}_files"] = files
        found[f"{name}_rows_per_s"] = round(count / _median(runs[True], "own_seconds"))
        found[f"{name}_rows_per_processor_s"] = round(count / _median(runs[True], "processor_seconds"))
        found[f"{name}_mb"] = round(max(run["mb"] for run in runs[True]))
    return found


def main() -> None:
    """Measure, show, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate", description=__doc__)
    parser.add_argument("--history", type=int, default=10_000_000, help="rows of the large silver (the small one has a tenth)")
    parser.add_argument("--new", type=int, default=10_000, help="new events of a run")
    parser.add_argument("--input", type=int, default=300_000, help="events of the large input")
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    use_env_file()
    console = Console()
    if not _PYTHON.exists():
        sys.exit("headrace: Spark is not there yet: `make up` fetches it")
    cores = int(os.environ.get("CURATION_CORES") or 2)
    with ExitStack() as stack:
        small, large = (stack.enter_context(_site(cores)) for _ in range(2))
        for site, history in ((small, wanted.history // 10), (large, wanted.history)):
            with console.status(f"Making a silver of {history:,} rows"):
                site.land(100)
                site.prepare(history)
        with console.status(f"{wanted.new:,} new events on both"):
            figures: dict[str, float] = {"small_history_rows": wanted.history // 10, "large_history_rows": wanted.history}
            figures |= {"new_events": wanted.new} | _cost_by_size(small, large, wanted.new, wanted.repeats)
        show(figures)
        with console.status("By the rule, and by Spark's defaults"):
            sizes = {"small_input": (wanted.new, 1), "large_input": (wanted.input, 10)}
            figures |= _rule_and_defaults(small, sizes, wanted.repeats)
    figures |= {"cores": cores, "load_average": round(os.getloadavg()[1], 1)}
    keep("curate", figures)
    show(figures)


if __name__ == "__main__":
    main()
