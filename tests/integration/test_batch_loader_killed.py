"""SIGKILL between any two instructions leaves nothing or a whole commit; a commit whose outcome nobody told is looked for, never undone."""

import os
import random
import socket
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pyarrow.fs import FileSelector, S3FileSystem
from pyiceberg.table import Table

from headrace.service import Topics
from tests.integration.consumers import ConsumerProcess, enriched_event, eventually, pair, produce, topics
from tests.integration.doomed_loader import Life, Line, Place
from tests.integration.lakes import catalog, namespace
from tests.integration.test_batch_loader import messages, places
from verify.ports import free_port

pytestmark = pytest.mark.usefixtures("servers")

_SETTINGS = {"BATCH_LOADER_MAX_ROWS": "400", "BATCH_LOADER_MAX_AGE_SECONDS": "0.2"}
_COMMIT = b"Q" + struct.pack("!i", 11) + b"COMMIT\0"  # as PostgreSQL's protocol says it
_LINES_OF_A_COMMIT = 30_000  # more or less; where there are fewer, the next batch is hit


def environment(ours: Topics) -> dict[str, str]:
    return {
        **_SETTINGS,
        "BATCH_LOADER_GROUP": f"{ours.prefix}batch-loader",
        "BATCH_LOADER_INSTANCE": "0",
        "BATCH_LOADER_METRICS_PORT": str(free_port()),
        "SCHEMAS_DIR": str(Path("schemas").absolute()),
    }


def referenced_and_stored(table: Table) -> tuple[set[str], set[str]]:
    """The data files that the table names, and those that are in the store."""
    named = {path.removeprefix("s3://") for path in table.inspect.all_files()["file_path"].to_pylist()}
    io: Any = table.io
    store: S3FileSystem = io.fs_by_scheme("s3", None)
    below = FileSelector(table.location().removeprefix("s3://") + "/data", recursive=True)
    return named, {found.path for found in store.get_file_info(below) if found.is_file}


def finish(ours: Topics, bronze: str, log: Path) -> None:
    """One more loader, which is left alone; then the tables hold every message once, and every file they name is there."""
    produce(ours.enriched, [pair(enriched_event("last"))])
    expected = messages(ours.enriched)
    with Life(ours.prefix, bronze, environment(ours), None, str(log)):
        eventually(lambda: len(places(f"{bronze}.events")), len(expected))
        letters = messages(ours.dead_letter("collector"))
        eventually(lambda: len(places(f"{bronze}.dead_letters")), len(letters))
    assert places(f"{bronze}.events") == expected
    assert places(f"{bronze}.dead_letters") == letters
    named, stored = referenced_and_stored(catalog().load_table(f"{bronze}.events"))
    assert named <= stored


@pytest.mark.parametrize("seed", [1])
def test_killed_at_any_moment_and_at_any_line_it_loses_and_doubles_nothing(seed: int, tmp_path: Path) -> None:
    chance, log = random.Random(seed), tmp_path / "loader.log"
    with topics() as ours, namespace() as bronze:
        by_line = 0
        for life in range(10):
            produce(ours.enriched, [pair(enriched_event(f"e{life}-{n}")) for n in range(1500)])
            produce(ours.dead_letter("collector"), [(b"", b"garbage")] * 20)
            doom = Line(chance.randrange(_LINES_OF_A_COMMIT)) if life % 2 else None
            with Life(ours.prefix, bronze, environment(ours), doom, str(log)) as loader:
                by_line += loader.ended_within(60 if doom else chance.uniform(0.3, 2.0))
        assert by_line >= 4, f"only {by_line} of 5 lives came to their chosen line: see {log}"
        assert places(f"{bronze}.events"), "no life got as far as a commit"
        finish(ours, bronze, log)


_PLACES = {
    "file written": Place("loaders.batch.table:write_files", after=True),
    "before the commit": Place("pyiceberg.catalog.sql:SqlCatalog.commit_table", after=False),
    "metadata written, catalog not": Place("pyiceberg.catalog.sql:SqlCatalog._write_metadata", after=True),
    "after the commit": Place("pyiceberg.catalog.sql:SqlCatalog.commit_table", after=True),
    "between the two tables": Place("loaders.batch.table:BronzeTable.append", after=True),
    "before Kafka is told": Place("loaders.batch.table:BronzeTable.append", after=True, nth=2),
}
_LANDED = {"after the commit", "between the two tables", "before Kafka is told"}


def test_killed_at_the_places_that_matter_there_is_nothing_or_all(tmp_path: Path) -> None:
    """A loader that follows one that was killed takes each topic alone, so either table may be the first to be written."""
    log = tmp_path / "loader.log"

    def landed() -> int:
        return sum(len(places(f"{bronze}.{table}")) for table in ("events", "dead_letters"))

    with topics(1) as ours, namespace() as bronze:
        for number, (name, place) in enumerate(_PLACES.items()):
            before = landed()
            produce(ours.enriched, [pair(enriched_event(f"e{number}-{n}")) for n in range(100)])
            produce(ours.dead_letter("collector"), [(b"", b"garbage")] * 3)
            with Life(ours.prefix, bronze, {**environment(ours), "BATCH_LOADER_MAX_AGE_SECONDS": "2"}, place, str(log)) as loader:
                assert loader.ended_within(60), f"it did not come to {name!r}: {log.read_text()[-2000:]}"
            now = landed()
            assert (now > before) is (name in _LANDED), f"{name}: {now - before} more rows"
        named, stored = referenced_and_stored(catalog().load_table(f"{bronze}.events"))
        assert named < stored, "files of the commits that did not land are still there: nothing deletes in doubt"
        finish(ours, bronze, log)


class Thief:
    """A way to PostgreSQL that loses COMMITs of the catalog: the request before it arrives, or the answer after it was done."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()
        self.wanted: list[str] = []  # "request" or "answer", for the commits to come
        self.stolen: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                mute, heard = threading.Event(), threading.Event()
                threading.Thread(target=self._requests, args=(near, far, mute, heard), daemon=True).start()
                threading.Thread(target=self._answers, args=(near, far, mute, heard), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket, mute: threading.Event, heard: threading.Event) -> None:
        changes = False
        with suppress(OSError), near:
            while data := near.recv(65536):
                changes = changes or b"UPDATE iceberg_tables" in data
                if changes and self.wanted and data == _COMMIT:
                    what = self.wanted.pop(0)
                    if what == "answer":
                        mute.set()
                        far.sendall(data)
                        assert heard.wait(30)
                    self.stolen.append(what)
                    return  # the loader sees a broken connection; PostgreSQL sees nothing, and keeps its lock if it has one
                far.sendall(data)

    def _answers(self, near: socket.socket, far: socket.socket, mute: threading.Event, heard: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if mute.is_set():
                    heard.set()
                    return
                near.sendall(data)


@pytest.mark.parametrize("what", ["answer", "request"])
def test_a_commit_whose_outcome_nobody_told_is_looked_for(what: str) -> None:
    thief = Thief(os.environ["LAKE_CATALOG_URL"])
    with topics(1) as ours, namespace() as bronze:
        settings = {**_SETTINGS, "LAKE_CATALOG_URL": thief.url}
        with ConsumerProcess("batch-loader", ours, namespace=bronze, **settings) as loader:
            produce(ours.enriched, [pair(enriched_event(f"a{n}")) for n in range(100)])
            eventually(lambda: len(places(f"{bronze}.events")), 100)
            thief.wanted += [what] * 2
            for part in range(2):
                produce(ours.enriched, [pair(enriched_event(f"b{part}-{n}")) for n in range(100)])
                eventually(lambda: len(places(f"{bronze}.events")), 200 + part * 100)
            eventually(lambda: thief.stolen, [what] * 2)
            produce(ours.enriched, [pair(enriched_event("last"))])
            eventually(lambda: len(places(f"{bronze}.events")), 301)
            assert places(f"{bronze}.events") == messages(ours.enriched)
            assert loader.is_running()
            assert ("unavailable" in loader.said()) is (what == "request")
        named, stored = referenced_and_stored(catalog().load_table(f"{bronze}.events"))
        assert named == stored, "what was written for a commit is used when it is tried again"
    thief.close()
