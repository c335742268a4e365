"""What is looked at where docker/compose.models.yml is used, with the profiles `online` and `scoring`: a model is made by Airflow, promoted
from within, served without a restart, and answers through Kafka; the online store comes to hold the customers."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from cli.airflow import run_dag
from enrichment_api.queue.stage import REPLIES
from runtime.errors import RuntimeFailure
from tests.integration.scoring import ask, messages, request

ROOT = Path(__file__).parent.parent.parent
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
    promote = ["run", "--rm", "--no-TTY", "cli", "models", "promote", "repurchase", "1", "--why", "it passed"]
    print(_compose(*promote), flush=True)
    until = time.monotonic() + _SERVED_SECONDS
    while (version := _served(env)) == first:
        if time.monotonic() > until:
            raise RuntimeFailure(f"{_SERVED_SECONDS} s after the promotion the enrichment API still serves {first}")
        time.sleep(1)
    print(f"The enrichment API serves {version}, and served {first} before.")
    _answered(env, version)


def stored() -> None:
    """The online store comes to hold each customer of the lake. Raises RuntimeFailure."""
    asked = [sys.executable, "-m", "cli", "sql", "--csv", "SELECT count(*) FROM lake.gold.customer_features"]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    customers, keys, until = int(said[-1]), 0, time.monotonic() + _STORED_SECONDS
    while keys < customers:
        if time.monotonic() > until:
            raise RuntimeFailure(f"the online store holds {keys} keys, and the lake {customers} customers")
        time.sleep(1)
        keys = int(_compose("exec", "--no-TTY", "redis", "sh", "-c", 'REDISCLI_AUTH="$REDIS_PASSWORD" valkey-cli dbsize').split()[-1])
    print(f"The online store holds {keys} keys, for {customers} customers.")


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


def _compose(*arguments: str) -> str:
    done = subprocess.run(["docker", "compose", "--progress", "quiet", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeFailure(f"docker compose {' '.join(arguments)}: {(done.stdout + done.stderr).strip()[-3000:]}")
    return done.stdout.strip()
