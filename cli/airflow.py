"""Airflow's REST API (version 2), as far as the commands need it."""

import time
from collections.abc import Mapping
from typing import Any

import httpx

from headrace.dead_letter import Unavailable

_LAST_LINES = 25


def run_dag(env: Mapping[str, str], dag: str, within: float, task: str | None = None, parameters: Mapping[str, str] | None = None) -> None:
    """Start a run of `dag` with these `parameters` and wait for its success, or that of one `task` of it.

    Raises Unavailable where it fails, with the end of what the failed task printed, or is not done within so many seconds.
    """
    address = env["AIRFLOW_URL"]
    deadline = time.monotonic() + within
    try:
        with httpx.Client(base_url=address, timeout=30) as client:
            login = {"username": env["AIRFLOW_ADMIN_USER"], "password": env["AIRFLOW_ADMIN_PASSWORD"]}
            token = _checked(client.post("/auth/token", json=login))["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"
            wanted = {"logical_date": None, "conf": {**(parameters or {})}}
            run = _checked(client.post(f"/api/v2/dags/{dag}/dagRuns", json=wanted))["dag_run_id"]
            page, asked = f"{address}/dags/{dag}/runs/{run}", f"/api/v2/dags/{dag}/dagRuns/{run}"
            awaited = f"{asked}/taskInstances/{task}" if task else asked
            while time.monotonic() < deadline:
                try:
                    state = _checked(client.get(awaited))["state"]
                except httpx.TimeoutException:  # it is busy, and so may be the run
                    continue
                if state == "success":
                    return
                if state == "failed":
                    words = _last_words(client, f"{asked}/taskInstances")
                    raise Unavailable(f"run {run} of the DAG {dag} failed:\n{words}\nits task logs are at {page}")
                time.sleep(1)
    except httpx.TransportError as error:
        raise Unavailable(f"Airflow not reachable at {address}: {error}") from error
    raise Unavailable(f"run {run} of the DAG {dag} was not done within {within:.0f} s: see {page}")


def _last_words(client: httpx.Client, tasks: str) -> str:
    """The last lines that the failed ones of `tasks` printed, or why they are not to be had."""
    lines = list[str]()
    try:
        for task in _checked(client.get(tasks))["task_instances"]:
            if task["state"] == "failed":
                log = _checked(client.get(f"{tasks}/{task['task_id']}/logs/{task['try_number']}", headers={"Accept": "application/json"}))
                lines_of_log = [line for line in log["content"] if isinstance(line, dict)]  # text, where Airflow could not read them
                printed = [str(line["event"]) for line in lines_of_log if str(line.get("logger", "")).endswith("SubprocessHook")]
                lines += [f"{task['task_id']}, try {task['try_number']}:", *(f"  {line}" for line in printed[-_LAST_LINES:])]
    except (Unavailable, httpx.TransportError) as error:
        lines.append(str(error))
    return "\n".join(lines)


def _checked(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise Unavailable(f"Airflow answered {answer.status_code} to {answer.request.method} {answer.request.url}: {answer.text[:300]}")
    body: dict[str, Any] = answer.json()
    return body
