"""Airflow's REST API (version 2), as far as the commands need it."""

import time
from collections.abc import Mapping

import httpx

from headrace.dead_letter import Unavailable


def run_dag(env: Mapping[str, str], dag: str, within: float, task: str | None = None) -> None:
    """Start a run of `dag` and wait for its success, or that of one `task` of it.

    Raises Unavailable where it fails, or is not done within so many seconds.
    """
    address = f"http://{env['BIND_HOST']}:{env['AIRFLOW_PORT']}"
    deadline = time.monotonic() + within
    try:
        with httpx.Client(base_url=address, timeout=30) as client:
            login = {"username": env["AIRFLOW_ADMIN_USER"], "password": env["AIRFLOW_ADMIN_PASSWORD"]}
            token = _checked(client.post("/auth/token", json=login))["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            run = _checked(client.post(f"/api/v2/dags/{dag}/dagRuns", json={"logical_date": None}))["dag_run_id"]
            awaited = f"/api/v2/dags/{dag}/dagRuns/{run}" + (f"/taskInstances/{task}" if task else "")
            while time.monotonic() < deadline:
                try:
                    state = _checked(client.get(awaited))["state"]
                except httpx.TimeoutException:  # it is busy, and so may be the run
                    continue
                if state == "success":
                    return
                if state == "failed":
                    raise Unavailable(f"run {run} of the DAG {dag} failed: its task logs are at {address}/dags/{dag}/runs/{run}")
                time.sleep(1)
    except httpx.TransportError as error:
        raise Unavailable(f"Airflow not reachable at {address}: {error}") from error
    raise Unavailable(f"run {run} of the DAG {dag} was not done within {within:.0f} s: see {address}/dags/{dag}/runs/{run}")


def _checked(answer: httpx.Response) -> dict[str, str]:
    if answer.is_error:
        raise Unavailable(f"Airflow answered {answer.status_code} to {answer.request.method} {answer.request.url}: {answer.text[:300]}")
    body: dict[str, str] = answer.json()
    return body
