"""What one run of curation is, and what it makes of the rows that it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame

from dags.curation import lake, privacy, silver
from dags.curation.expectations import Expectation
from dags.curation.plan import Table
from dags.curation.privacy import Marks


@dataclass(frozen=True)
class Run:
    """One run: what it is called in its results, when it began, and what it curates by."""

    id: str
    at: datetime
    by_type: Mapping[str, Table]
    expected: Mapping[str, Sequence[Expectation]]
    split_bytes: int
    marks: Marks


def judged(run: Run, new: DataFrame) -> DataFrame:
    """`new` rows of bronze.events, kept, with a verdict on each (silver.judged), and without what the plan marks as identifying a person.

    The checks are of the event as it was sent; masking comes last, and nothing is written before it.
    """
    landed = {row["type"]: row["count"] for row in new.groupBy("type").count().collect()}
    checked = silver.with_problem(
        silver.with_content_hash(new), [table for type, table in run.by_type.items() if type in landed], run.expected
    )
    return lake.kept(privacy.masked(silver.judged(checked, lake.known_identities(new, sum(landed.values()))), run.marks))
