"""The environment in which curation's dbt models are run on Trino: no server."""

from collections.abc import Callable, Sequence

from runtime.component import Place, Program
from runtime.venvs import make_venv


class Dbt:
    """dbt with its Trino adapter."""

    name = "dbt"
    profile = "full"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The environment `dbt`."""
        make_venv(place, "dbt", say)

    def configure(self, place: Place) -> None:
        """Nothing: the profile stands beside the models and reads the environment."""

    def programs(self, place: Place) -> Sequence[Program]:  # noqa: ARG002
        """None."""
        return []
