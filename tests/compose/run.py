"""`make test-compose`: docker-compose.yml on a real engine, from nothing to nothing.

Stand-ins (or, with REAL_IMAGES=1, the real images), `up --wait`, the end-to-end tests, each container restarted and then killed once, the
demo again, `down --volumes`, and nothing left over. PROFILE=core leaves out Trino, Airflow and Superset. KEEP=1 leaves it running.

PRODUCTION=1 is the same with docker/compose.production.yml: strangers are refused, and the demo balances, asked from within.
MODELS=1 with docker/compose.models.yml: a model is made, promoted and served (models.py), in place of the end-to-end tests.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from cli.airflow import run_dag
from headrace.dead_letter import Unavailable
from runtime import envfile
from runtime.catalog import components
from runtime.errors import RuntimeFailure
from runtime.platform import fetch, place_at
from runtime.preflight import ensure_packages
from tests.compose import config, models, production, standins
from tests.compose.commands import asked, compose, in_container, step, until
from tests.compose.engine import engine
from verify import plan

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".runtime" / "compose"
ENV_FILE = FOLDER / ".env"
SCHEMAS_DIR = ".runtime/compose/schemas"  # a copy: tests add event types
PORT_SHIFT = 4000
PROJECT = "headrace-test"
# Not those that start a platform of their own, of local processes.
TESTS = {
    "core": ["tests/e2e/test_first_event.py"],
    "full": [f"tests/e2e/test_{name}.py" for name in ("first_event", "any_input", "demo", "dlq", "new_event_type")],
}
_WAIT_SECONDS = 900
_DAG_SECONDS = 1500


def main() -> int:
    """Exit code 0 where everything was as it should be; else 1, with what was not."""
    profile, keep = os.environ.get("PROFILE", "full"), os.environ.get("KEEP") == "1"
    real, strict, made = (os.environ.get(name) == "1" for name in ("REAL_IMAGES", "PRODUCTION", "MODELS"))
    override = production if strict else models if made else None
    _settings(profile, strict, override.SETTINGS if override else {})
    if override:
        os.environ |= {"COMPOSE_FILE": override.OVERRIDE, "COMPOSE_PROFILES": f"{profile},online,scoring"}
    try:
        ensure_packages(["curl", *([] if real else ["debootstrap"])], print)
        with engine(ROOT, keep):
            if not real:
                place = place_at(ENV_FILE)
                fetch(place, components(profile, place.env))
                standins.build(profile, place)
            config.check_all(ENV_FILE)
            _remove()  # what KEEP=1 left: its volumes are of other passwords
            return _test(_in_production if strict else _with_models if made else _in_development, profile, keep)
    except (RuntimeFailure, LookupError, Unavailable) as failure:
        print(f"headrace: {failure}", file=sys.stderr)
        return 1


def _settings(profile: str, strict: bool, others: Mapping[str, str]) -> None:
    """The environment of every command from here on is that of this platform."""
    more = {"SCHEMAS_DIR": f"./{SCHEMAS_DIR}", "PROFILE": profile, **others}
    example = ROOT / ".env.example"
    text = envfile.beside(example.read_text(), ".runtime/compose/state", PORT_SHIFT, more)
    envfile.write_privately(ENV_FILE, production.settings(text, example.read_text()) if strict else text)
    if strict:
        production.make_secrets(FOLDER / "secrets", example)
    plan.write(ROOT / "schemas", ROOT / SCHEMAS_DIR)
    os.environ |= {
        "HEADRACE_ENV_FILE": str(ENV_FILE.relative_to(ROOT)),
        "COMPOSE_ENV_FILES": str(ENV_FILE),
        "COMPOSE_PROJECT_NAME": PROJECT,
    }
    authorities = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    if authorities.is_file():
        os.environ.setdefault("EXTRA_CA_FILE", str(authorities))


def _test(looks: Callable[[str], None], profile: str, keep: bool) -> int:
    try:
        step("Building our images", compose("build", "--quiet"))
        began = time.monotonic()
        step("Starting everything", compose("up", "--detach", "--wait", "--wait-timeout", str(_WAIT_SECONDS), "--quiet-pull"))
        print(f"Healthy after {time.monotonic() - began:.0f} s.")
        looks(profile)
        print(_memory())
    finally:
        if keep:
            print(f"Still running: HEADRACE_ENV_FILE={os.environ['HEADRACE_ENV_FILE']}, project {PROJECT}")
        else:
            _remove()
    left = [] if keep else _left()
    if left:
        raise RuntimeFailure(f"left over after `down --volumes`: {', '.join(left)}")
    print("Nothing is left over." if not keep else "")
    return 0


def _in_development(profile: str) -> None:
    step("End-to-end tests", [sys.executable, "-m", "pytest", "-q", *TESTS[profile]])
    print(_memory())
    if profile == "full":
        _every_dag()
        _watched()
        step("Privacy, from within", in_container("privacy", "erase", "--subject", "nobody", "--dry-run"))
    names = [name for name in _services() if name not in _once()]
    for what, how in (("restarted", _restart), ("killed", _kill)):
        for name in names:
            how(name)
            _await_back(name)
        print(f"Each of {len(names)} containers was {what} once, and came back.")
    # Airflow takes five minutes to find that a killed scheduler's task has ended, and so may a curation.
    step("The demo, after all that", [sys.executable, "-m", "cli", "demo", "--purchases", "300", "--within", "900"])


def _with_models(_: str) -> None:
    env = envfile.read(ENV_FILE)
    models.look(env)
    step("The demo", [sys.executable, "-m", "cli", "demo", "--purchases", "300", "--within", "900"])
    run_dag(env, "curate", _DAG_SECONDS)
    models.stored()


def _every_dag() -> None:
    """Those that the end-to-end tests do not run; and what they cost is remembered."""
    env, today = envfile.read(ENV_FILE), datetime.now(UTC).strftime("%Y-%m-%d")
    for dag, parameters in (("backfill", {"from": today, "to": today}), ("quality_report", {}), ("maintain", {})):
        print(f"The DAG {dag}", flush=True)
        run_dag(env, dag, _DAG_SECONDS, parameters=parameters)
    jobs = asked(sys.executable, "-m", "cli", "sql", "--csv", "SELECT DISTINCT job FROM lake.gold.runs ORDER BY job").split()
    wanted = {"analyze", "backfill", "compact", "expire", "silver", "sweep"}
    if missing := wanted - {*jobs}:
        raise RuntimeFailure(f"lake.gold.runs has no row of {', '.join(sorted(missing))}: {jobs}")


def _watched() -> None:
    """Prometheus reads every service, and can evaluate every rule. (Grafana has no stand-in.)"""
    step("Starting Prometheus", compose("--profile", "observability", "up", "--detach", "--wait", "prometheus"))
    api = f"http://127.0.0.1:{envfile.read(ENV_FILE)['PROMETHEUS_PORT']}/api/v1"

    def told(what: str) -> Any:
        return httpx.get(f"{api}/{what}", timeout=30).json()["data"]

    jobs = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    wanted = {job["job_name"] for job in jobs if "static_configs" in job}  # the others are there with a profile of theirs
    until(lambda: {each["labels"]["job"] for each in told("targets")["activeTargets"] if each["health"] == "up"} == wanted, "all are read")
    until(lambda: all(rule["health"] == "ok" for rule in told("rules")["groups"][0]["rules"]), "all rules are evaluated")
    print(f"Prometheus reads {len(wanted)} services; firing: {[alert['labels']['alertname'] for alert in told('alerts')['alerts']]}")


def _in_production(profile: str) -> None:
    step("Strangers", production.strangers())
    key = asked(*in_container("keys", "make", "--source", "demo"))
    step(
        "The demo, from within",
        in_container("demo", "--purchases", "300", "--within", "400", environment=f"HEADRACE_WRITE_KEY={key}"),
    )


def _services() -> list[str]:
    return asked("docker", "compose", "config", "--services").split()


def _once() -> set[str]:
    """Those that end when they have done their work."""
    said = asked("docker", "compose", "config", "--format", "json")
    return {name for name, service in json.loads(said)["services"].items() if service.get("restart") in ("no", "on-failure")}


def _container(name: str) -> dict[str, object]:
    id = asked("docker", "compose", "ps", "--all", "--quiet", name)
    state: dict[str, object] = json.loads(asked("docker", "inspect", "--format", "{{json .State}}", id))
    return state


def _remove() -> None:
    """With the volumes of every override, since an earlier one may have had another."""
    files = [part for file in models.OVERRIDE.split(":") for part in ("--file", file)]
    subprocess.run(compose(*files, "--profile", "*", "down", "--volumes", "--remove-orphans"), cwd=ROOT, check=False)


def _restart(name: str) -> None:
    step(f"Restarting {name}", compose("restart", "--no-deps", name))


def _kill(name: str) -> None:
    """As a crash would: `docker kill` counts as a person's wish, and the engine would not start it again."""
    pid = str(_container(name)["Pid"])
    command = ["kill", "-9", pid] if os.geteuid() == 0 else ["sudo", "-n", "kill", "-9", pid]
    step(f"Killing {name}", command)
    until(lambda: _container(name)["Pid"] not in (0, int(pid)), f"{name} is started again")


def _await_back(name: str) -> None:
    def healthy() -> bool:
        state = _container(name)
        health = state.get("Health")
        return bool(state["Running"]) and (not isinstance(health, dict) or health["Status"] == "healthy")

    until(healthy, f"{name} is healthy again")


def _memory() -> str:
    """What each container takes, and all together."""
    lines = asked("docker", "stats", "--no-stream", "--format", "{{.Name}}\t{{.MemUsage}}").splitlines()
    mine = [line.split("\t") for line in lines if line.startswith(f"{PROJECT}-")]
    units = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0}
    used = {name: float(text.split(" ")[0][:-3]) * units[text.split(" ")[0][-3:]] for name, text in mine}
    rows = [f"  {name.removeprefix(PROJECT + '-'):28} {text}" for name, text in sorted(mine)]
    return "\n".join([*rows, f"  together {sum(used.values()):.0f} MiB"])


def _left() -> list[str]:
    label = f"label=com.docker.compose.project={PROJECT}"
    listings = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return [line for listing in listings for line in asked("docker", *listing, "--quiet", "--filter", label).splitlines()]


if __name__ == "__main__":
    sys.exit(main())
