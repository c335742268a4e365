"""Scoring through Kafka by Spark Structured Streaming, where SCORING_STREAM is on."""

from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import java
from runtime.component import Place, Program
from runtime.maven import fetch_jars

POM = Path(__file__).parent.parent / "maven" / "spark-kafka"


class ScoringStream:
    """A Spark of its own, in the environment `ml`."""

    name = "scoring-stream"
    profile = "models"
    apt: Sequence[str] = (java.PACKAGE, "maven")

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """What Spark needs to know of Kafka."""
        fetch_jars(POM, jars(place), say)

    def configure(self, place: Place) -> None:
        """Nothing: all is in the settings."""

    def programs(self, place: Place) -> Sequence[Program]:
        """One process, with Spark's JVM below it. It waits for the API, which makes the first model."""
        return [
            Program(
                name=self.name,
                command=[str(place.venvs / "ml" / "bin" / "python"), "-m", "ml", "stream"],
                ready=lambda: True,
                after=["kafka", "enrichment-api"],
                environment={"SPARK_KAFKA_JARS": str(jars(place)), "JAVA17_HOME": str(java.home())},
                stop_within=40,
            )
        ]


def jars(place: Place) -> Path:
    """Where the jars are."""
    return place.servers / "spark-kafka-jars"
