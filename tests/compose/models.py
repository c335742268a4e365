"""What is looked at where docker/compose.models.yml is used, with the profiles `online` and `scoring`: a model is made by Airflow, promoted
from within, served without a restart, and answers through Kafka; the online store comes to hold the customers."""

import json
import sys
import time
from collections.abc import Mapping

import httpx

from cli.airflow import run_dag
from enrichment_api.queue.stage import REPLIES
from runtime.errors import RuntimeFailure
from tests.compose.commands import asked, compose, in_container, step, until
from tests.integration.scoring import ask, messages, request

OVERRIDE = "docker-compose.yml:docker/compose.models.yml"
SETTINGS = {"ENRICHMENT_API_FEATURES": "redis", "ML_SPARK_MEMORY": "1g"}
_DAG_SECONDS = 1500
_SERVED_SECONDS = 60
_STORED_SECONDS = 120


def look(env: Mapping[str, str]) -> None:
    """Raises RuntimeFailure where something is not as it should be."""
    first = _served(env)
    print("The DAG train", flush=True)
    run_dag(env, "train", _DAG_SECONDS, parameters={"scenario": "repurchase"})
    step("Promotion, from within", in_container("models", "promote", "repurchase", "1", "--why", "it passed"))
    until(lambda: _served(env) != first, "what was promoted is served", _SERVED_SECONDS)
    version = _served(env)
    print(f"The enrichment API serves {version}, and served {first} before.")
    _answered(env, version)


def stored() -> None:
    """The online store comes to hold each customer of the lake. Raises RuntimeFailure."""
    count = "SELECT count(*) FROM lake.gold.customer_features"
    customers = int(asked(sys.executable, "-m", "cli", "sql", "--csv", count).split()[-1])
    until(lambda: _keys() >= customers, f"the online store holds the lake's {customers} customers", _STORED_SECONDS)
    print(f"The online store holds {_keys()} keys, for {customers} customers.")


def _keys() -> int:
    """0 where it does not answer."""
    size = 'REDISCLI_AUTH="$REDIS_PASSWORD" valkey-cli dbsize'
    return int(asked(*compose("exec", "--no-TTY", "redis", "sh", "-c", size)) or 0)


def _served(env: Mapping[str, str]) -> str:
    """The version that the champion's share of the traffic gets."""
    answer = httpx.get(f"http://127.0.0.1:{env['ENRICHMENT_API_PORT']}/v1/models", timeout=30).raise_for_status()
    (release,) = answer.json()["serving"]
    return str(next(each["version"] for each in release["variants"] if each["variant"] == "champion"))


def _answered(env: Mapping[str, str], version: str) -> None:
    """The worker answers a request that stands in Kafka, with this version."""
    kafka = f"127.0.0.1:{env['KAFKA_PORT']}"
    name = f"compose-{time.time_ns()}"
    ask(kafka, request(name, 2))
    for some in messages(kafka, REPLIES, _SERVED_SECONDS):
        for _, reply in some:
            if reply["correlation_id"] == name:
                said = reply["enrichment"]["repurchase"]
                if said["version"] != version or not 0 < said["score"] < 1:
                    raise RuntimeFailure(f"through Kafka came {json.dumps(said)}, and {version} was to score")
                print(f"Through Kafka: {json.dumps(said)}")
                return
