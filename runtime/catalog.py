"""Which components a platform has."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from runtime.component import Component, Place, Program
from runtime.errors import RuntimeFailure
from runtime.servers.elasticsearch import Elasticsearch
from runtime.servers.kafka import Kafka
from runtime.servers.minio import Minio
from runtime.servers.postgres import Postgres
from runtime.services import Services

PROFILES = ("core", "full")


def components(profile: str) -> list[Component]:
    """Those of a profile. Raises RuntimeFailure where there is no such profile."""
    if profile not in PROFILES:
        raise RuntimeFailure(f"PROFILE={profile}: it is one of {', '.join(PROFILES)}")
    core: list[Component] = [Kafka(), Elasticsearch(), Minio(), Postgres(), Services()]
    if profile == "core":
        return core
    more = [("trino", "Trino"), ("spark", "Spark"), ("dbt", "Dbt"), ("airflow", "Airflow"), ("superset", "Superset")]
    there = [(module, name) for module, name in more if find_spec(f"runtime.servers.{module}")]
    return core + [getattr(import_module(f"runtime.servers.{module}"), name)() for module, name in there]


def programs_of(parts: Sequence[Component], place: Place) -> list[tuple[Component, Program]]:
    """Every program with its component."""
    return [(part, program) for part in parts for program in part.programs(place)]
