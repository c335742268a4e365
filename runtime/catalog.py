"""Which components a platform has."""

from collections.abc import Sequence

from runtime.component import Component, Env, Place, Program
from runtime.errors import RuntimeFailure
from runtime.servers.airflow import Airflow
from runtime.servers.dbt import Dbt
from runtime.servers.elasticsearch import Elasticsearch
from runtime.servers.kafka import Kafka
from runtime.servers.minio import Minio
from runtime.servers.mlflow import Mlflow
from runtime.servers.models import Models
from runtime.servers.postgres import Postgres
from runtime.servers.redis import Redis
from runtime.servers.spark import Spark
from runtime.servers.stream import ScoringStream
from runtime.servers.superset import Superset
from runtime.servers.trino import Trino
from runtime.services import Services

PROFILES = ("core", "full", "models", "lab")


def components(profile: str, env: Env) -> list[Component]:
    """Those of a profile, and what settings ask for besides. Raises RuntimeFailure where there is no such profile."""
    if profile not in PROFILES:
        raise RuntimeFailure(f"PROFILE={profile}: it is one of {', '.join(PROFILES)}")
    if profile == "lab":
        return [Minio(), Postgres(), Mlflow(), Models()]
    core: list[Component] = [Kafka(), Elasticsearch(), Minio(), Postgres(), Services()]
    if env.get("ENRICHMENT_API_FEATURES") == "redis" or env.get("ENRICHMENT_API_SCORES"):
        core.insert(-1, Redis())
    if profile == "core":
        return core
    full = [*core, Trino(), Spark(), Dbt(), Airflow(), Superset()]
    if profile == "full":
        return full
    return [*full, Mlflow(), Models(), *([ScoringStream()] if env.get("SCORING_STREAM") == "on" else [])]


def programs_of(parts: Sequence[Component], place: Place) -> list[tuple[Component, Program]]:
    """Every program with its component."""
    return [(part, program) for part in parts for program in part.programs(place)]
