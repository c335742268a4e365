"""`headrace topics`: what stands in Kafka."""

from collections import Counter

import msgspec
from rich.table import Table

from cli.context import out, settings
from cli.kafka import consumer_of, offsets_of, values_in
from headrace import dead_letter, event
from headrace.kafka import DEAD_LETTER_TOPICS


def topics() -> None:
    """Show how many messages stand in each topic, and the dead letters by reason."""
    table = Table("topic", "messages", "dead letters by reason", box=None, pad_edge=False, header_style="bold")
    table.columns[1].justify = "right"
    with consumer_of(settings()) as consumer:
        for topic in (event.RAW_TOPIC, event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS):
            offsets = offsets_of(consumer, topic)
            if offsets is None:
                table.add_row(topic, "-", "not there: `make up` makes it")
            elif topic in DEAD_LETTER_TOPICS:
                reasons = Counter(_reason(value) for value in values_in(consumer, topic, offsets))
                table.add_row(topic, f"{reasons.total():,}", ", ".join(f"{reason} {n:,}" for reason, n in reasons.most_common()))
            else:
                count = sum(after - first for first, after in offsets.values())
                # The marker at the end of each transaction has an offset too.
                table.add_row(topic, f"{'≤ ' if topic == event.ENRICHED_TOPIC and count else ''}{count:,}", "")
    out.print(table)


def _reason(value: bytes) -> str:
    try:
        return dead_letter.decode(value).reason.value
    except msgspec.DecodeError:
        return "not of Headrace's form"
