"""Where an event can be found on its way: one reader for each station. Each answers for given events only, whatever else flows."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cli.chunks import chunks
from cli.kafka import Env, consumer_of, offsets_of, values_in
from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter
from headrace.kafka import DEAD_LETTER_TOPICS


@dataclass(frozen=True)
class Found:
    """What stood at one station: how often each event id was there, and the dead letters."""

    events: Counter[str]
    dead_letters: tuple[DeadLetter, ...] = ()

    @property
    def reasons(self) -> Counter[str]:
        """Dead letters by reason."""
        return Counter(letter.reason.value for letter in self.dead_letters)

    @property
    def distinct(self) -> Counter[str]:
        """The same, where a payload that was sent again counts once."""
        return Counter(reason for reason, _ in {(letter.reason.value, letter.payload) for letter in self.dead_letters})


class Kafka:
    """The topics from the moment of construction on: what was there before is not read."""

    def __init__(self, env: Env) -> None:
        self._env = env
        with consumer_of(env) as consumer:
            topics = (event.RAW_TOPIC, event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS)
            self._start = {topic: offsets_of(consumer, topic) or {} for topic in topics}

    def read(self, topic: str) -> list[bytes]:
        """The values that came into `topic` since. Raises KafkaException."""
        with consumer_of(self._env) as consumer:
            now = offsets_of(consumer, topic) or {}
            since = {partition: (self._start[topic].get(partition, (0, 0))[1], high) for partition, (_, high) in now.items()}
            return list(values_in(consumer, topic, since))


def in_topic(kafka: Kafka, topic: str, ids: Collection[str]) -> Found:
    """Events of `ids` in `events.raw` or `events.enriched`."""
    found = (event.decode_raw(value).id for value in kafka.read(topic))
    return Found(Counter(id for id in found if id in ids))


def in_dead_letter_topic(kafka: Kafka, topic: str, mark: str) -> Found:
    """Dead letters in whose payload `mark` stands."""
    letters = (dead_letter.decode(value) for value in kafka.read(topic))
    return Found(Counter(), tuple(letter for letter in letters if mark.encode() in letter.payload_bytes()))


def in_elasticsearch(client: Any, ids: Sequence[str], letters: Sequence[str]) -> Found:
    """Documents of the events `ids`, and (as event counts too) of the dead letters `letters`, by `_id`."""
    found: Counter[str] = Counter()
    for alias, name, wanted in (("events_all", "id", ids), ("dead_letters_all", "dead_letter_id", letters)):
        for some in chunks(wanted, 5000):
            answer = client.search(index=alias, query={"terms": {name: some}}, size=10_000, source=[name])
            found.update(hit["_source"][name] for hit in answer["hits"]["hits"])
    return Found(found)


def in_bronze(catalog: Any, since: datetime, ids: Collection[str], letters: Collection[str]) -> Found:
    """Rows of bronze that came since `since`: events by id, dead letters by dead_letter_id."""
    found: Counter[str] = Counter()
    moment = since.isoformat()
    for table, name, at, wanted in (
        ("bronze.events", "id", "received_at", ids),
        ("bronze.dead_letters", "dead_letter_id", "rejected_at", letters),
    ):
        rows = catalog.load_table(table).scan(row_filter=f"{at} >= '{moment}'", selected_fields=(name,)).to_arrow()
        found.update(id for id in rows[name].to_pylist() if id in wanted)
    return Found(found)


def in_table(cursor: Any, table: str, column: str, wanted: Sequence[str]) -> Counter[str]:
    """How often each of `wanted` stands in `column` of a table that Trino reads."""
    found: Counter[str] = Counter()
    for some in chunks(wanted, 5000):
        marks = ", ".join("'" + value.replace("'", "''") + "'" for value in some)
        cursor.execute(f"SELECT {column}, count(*) FROM {table} WHERE {column} IN ({marks}) GROUP BY 1")
        found.update(dict(cursor.fetchall()))
    return found
