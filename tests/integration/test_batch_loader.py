"""The batch loader on a real Kafka and a real lake: the tables hold every message once, whatever is killed or away."""

import time
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from headrace import dead_letter
from headrace.dead_letter import DeadLetter, Reason
from headrace.runner import Rewind
from loaders.batch import rows
from loaders.batch.table import BronzeTable, open_table
from tests.integration.consumers import CLICK, ConsumerProcess, enriched_event, eventually, pair, produce, read_all, topics
from tests.integration.lakes import catalog, namespace

pytestmark = pytest.mark.usefixtures("servers")


def places(name: str) -> list[tuple[str, int, int]]:
    """Topic, partition and offset of each row, sorted."""
    ours = catalog()
    if not ours.table_exists(name):
        return []
    fields = ("kafka_topic", "kafka_partition", "kafka_offset")
    table = ours.load_table(name).scan(selected_fields=fields).to_arrow()
    return sorted(zip(*(table[field].to_pylist() for field in fields), strict=True))


def messages(topic: str) -> list[tuple[str, int, int]]:
    return sorted((message.topic(), message.partition(), message.offset()) for message in read_all(topic))


def test_rows_say_what_the_messages_said() -> None:
    with topics() as ours, namespace() as bronze:
        letter = DeadLetter(
            dead_letter_id=dead_letter.new_id(),
            service="collector",
            reason=Reason.TOO_LARGE,
            detail="test",
            rejected_at="2026-01-31T23:59:59.999Z",
            payload="{",
            received_at="no moment",
            time="yesterday",
        )
        with ConsumerProcess("batch-loader", ours, namespace=bronze, BATCH_LOADER_MAX_AGE_SECONDS="1") as loader:
            produce(ours.enriched, [pair(enriched_event("e1", subject="s", received_at="2026-01-31T12:00:00.123Z"))])
            produce(ours.enriched, [pair(enriched_event("e2", time="not a time")), (b"", b"\xff")])
            produce(ours.dead_letter("enricher"), [(b"", dead_letter.encode(letter)), (b"", b"garbage")])
            eventually(lambda: len(places(f"{bronze}.dead_letters")), 4)
            eventually(lambda: len(places(f"{bronze}.events")), 1)
            assert loader.stop() == 0

        row = catalog().load_table(f"{bronze}.events").scan().to_arrow().to_pylist()[0]
        loaded_at = row.pop("loaded_at")
        assert abs((datetime.now(UTC) - loaded_at).total_seconds()) < 600
        assert row.pop("time").tzinfo is not None
        assert row.pop("enriched_at").tzinfo is not None
        assert row == {
            "id": "e1",
            "source": "consumers-test",
            "type": "button_click",
            "subject": "s",
            "dataschema": "button_click/1-0-0",
            "data": CLICK.decode(),
            "enrichment": "{}",
            "received_at": datetime(2026, 1, 31, 12, 0, 0, 123000, UTC),
            "collector_id": "test",
            "protocol": "cloudevents",
            "key_id": "k",
            "client": None,
            "user_agent": None,
            "kafka_topic": ours.enriched,
            "kafka_partition": row["kafka_partition"],
            "kafka_offset": row["kafka_offset"],
        }
        letters = {row["payload"]: row for row in catalog().load_table(f"{bronze}.dead_letters").scan().to_arrow().to_pylist()}
        assert letters["{"]["rejected_at"] == datetime(2026, 1, 31, 23, 59, 59, 999000, UTC)
        assert (letters["{"]["received_at"], letters["{"]["time"]) == (None, "yesterday")
        assert letters["garbage"]["reason"] == "unparseable"
        refused = {row["reason"] for row in letters.values() if row["service"] == "batch-loader"}
        assert refused == {"unparseable", "row_rejected"}
        days = {
            row["partition"]["rejected_at_day"] for row in catalog().load_table(f"{bronze}.dead_letters").inspect.partitions().to_pylist()
        }
        assert datetime(2026, 1, 31, tzinfo=UTC).date() in days


def test_two_loaders_that_know_nothing_of_each_other_double_nothing() -> None:
    """Two groups, so Kafka gives both every partition: only the table's offsets stand between them."""
    with topics() as ours, namespace() as bronze:
        settings = {"BATCH_LOADER_MAX_ROWS": "700", "BATCH_LOADER_MAX_AGE_SECONDS": "0.5"}
        other_group = {"BATCH_LOADER_GROUP": f"{ours.prefix}other"}
        with (
            ConsumerProcess("batch-loader", ours, namespace=bronze, **settings) as one,
            ConsumerProcess("batch-loader", ours, namespace=bronze, **settings, **other_group) as other,
        ):
            for part in range(8):
                produce(ours.enriched, [pair(enriched_event(f"e{part}-{n}")) for n in range(1500)])
                time.sleep(0.7)
            eventually(lambda: len(places(f"{bronze}.events")), 12_000)
            assert places(f"{bronze}.events") == messages(ours.enriched)
            assert "another loader has written" in one.said() + other.said()
            assert one.is_running()
            assert other.is_running()


def _rows(first: int, count: int) -> pa.Table:
    made = {field.name: pa.nulls(count, field.type) for field in rows.EVENTS}
    made["kafka_offset"] = pa.array(range(first, first + count), pa.int64())
    made["received_at"] = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * count, rows.EVENTS.field("received_at").type)
    return pa.table(made, schema=rows.EVENTS)


def test_a_commit_is_repeated_over_a_compaction_and_never_over_another_loader() -> None:
    with namespace() as bronze:
        name, place = f"{bronze}.events", ("t", 0)

        def opened() -> BronzeTable:
            table = BronzeTable(open_table(catalog(), name, rows.EVENTS, "received_at"), ["t"])
            table.look_up([place])
            return table

        one, other = opened(), opened()
        one.append(one.write(_rows(0, 10)), {place: 10})
        with pytest.raises(Rewind):
            other.append(other.write(_rows(0, 5)), {place: 5})
        assert other.look_up([place]) == {place: 10}
        other.append(other.write(_rows(10, 5)), {place: 15})
        assert one.look_up([place]) == {place: 15}

        # Somebody else (a compaction) commits between our look and our commit: ours is repeated and lands once.
        stale = one._table
        catalog().load_table(name).append(_rows(1000, 1))
        one._table = stale
        one._commit(one.write(_rows(15, 5)), {place: 15}, {place: 20})
        assert [row[2] for row in places(name)] == [*range(20), 1000]

        # An attempt whose outcome we were not told had landed: it is seen, and not repeated.
        one.append(one.write(_rows(15, 5)), {place: 20})
        assert [row[2] for row in places(name)] == [*range(20), 1000]
        properties = catalog().load_table(name).properties
        assert properties["headrace.offset.t.0"] == "20"


def test_the_table_forgets_old_snapshots_and_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaders.batch.table._MOST_SNAPSHOTS", 3)
    monkeypatch.setattr("loaders.batch.table._TOO_MANY", 2)
    with namespace() as bronze:
        name, place = f"{bronze}.events", ("t", 0)
        table = BronzeTable(open_table(catalog(), name, rows.EVENTS, "received_at"), ["t"])
        table.look_up([place])
        counts = []
        for n in range(8):
            table.append(table.write(_rows(n, 1)), {place: n + 1})
            if n == 0:
                now = catalog().load_table(name)
                now.manage_snapshots().create_tag(now.metadata.snapshots[0].snapshot_id, "kept").commit()
            counts.append(len(catalog().load_table(name).metadata.snapshots))
        assert max(counts) == 5
        assert [row[2] for row in places(name)] == list(range(8))
        metadata = catalog().load_table(name).metadata
        assert metadata.refs["kept"].snapshot_id in {snapshot.snapshot_id for snapshot in metadata.snapshots}
