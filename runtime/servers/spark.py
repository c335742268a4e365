"""The environment in which curation's Spark jobs run: no server, an engine that Airflow's tasks start and end."""

from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import java
from runtime.component import Place, Program
from runtime.maven import fetch_jars
from runtime.venvs import make_venv

POM = Path(__file__).parent.parent / "maven" / "spark"


class Spark:
    """PySpark and the jars that let it read and write the lake."""

    name = "spark"
    profile = "full"
    apt: Sequence[str] = (java.PACKAGE, "maven")

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `spark` and the folder `spark-jars`."""
        make_venv(place, "spark", say)
        fetch_jars(POM, jars(place), say)

    def configure(self, place: Place) -> None:
        """Nothing: a job gets its settings with its command."""

    def programs(self, place: Place) -> Sequence[Program]:  # noqa: ARG002
        """None."""
        return []


def jars(place: Place) -> Path:
    """Where Spark's additional jars are."""
    return place.servers / "spark-jars"
