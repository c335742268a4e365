"""What can be said of docker-compose.yml, its overrides and the images without a container engine."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from dags.curation.options import OptionsError, options
from docker import healthy
from runtime import accounts, envfile
from tests.compose import standins

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OVERRIDES = sorted((ROOT / "docker").glob("compose.*.yml"))
DOCKERFILES = [ROOT / "Dockerfile", *sorted((ROOT / "docker").glob("*/Dockerfile"))]
EXAMPLE = dotenv_values(ROOT / ".env.example", interpolate=False)
IMAGES: dict[str, dict[str, Any]] = tomllib.loads((ROOT / "docker" / "services.toml").read_text())
# Not of .env: how images are built, and what compose itself is told.
FROM_ENVIRONMENT = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "GOPROXY"}
FROM_ENVIRONMENT |= {"EXTRA_CA_FILE", "HEADRACE_ENV_FILE", "COMPOSE_PROJECT_NAME", "SECRETS_DIR"}
ONCE = {"topics", "bucket", "databases", "model", "airflow-migrate", "superset-migrate", "dashboards", "cli"}
MEGABYTE = {"m": 1, "g": 1024}


class _Overlay(yaml.SafeLoader):
    """Reads compose's own tags (`!reset`, `!override`) as what stands behind them."""


for _tag in ("!reset", "!override"):
    _Overlay.add_constructor(
        _tag,
        lambda loader, node: (
            loader.construct_mapping(node, deep=True)
            if isinstance(node, yaml.MappingNode)
            else loader.construct_sequence(node, deep=True)
            if isinstance(node, yaml.SequenceNode)
            else None
        ),
    )


def _profiles(name: str) -> set[str]:
    return set(SERVICES[name].get("profiles", ["core", "full", "online", "scoring", "tools", "observability"]))


def _limit(name: str) -> int:
    text = SERVICES[name]["mem_limit"]
    return int(text[:-1]) * MEGABYTE[text[-1]]


def test_every_image_is_pinned() -> None:
    named = [service["image"] for service in SERVICES.values()]
    for path in DOCKERFILES:
        text = path.read_text()
        named += re.findall(r"^ARG \w+_IMAGE=(\S+)", text, re.MULTILINE)
        stages = {name.lower() for name in re.findall(r"^FROM \S+ AS (\w+)", text, re.MULTILINE)}
        bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
        assert all(base.lower() in stages or re.fullmatch(r"\$\{\w+_IMAGE\}", base) for base in bases), path
    for path in OVERRIDES:
        named += [one["image"] for one in yaml.load(path.read_text(), _Overlay)["services"].values() if one and "image" in one]  # noqa: S506
    assert named
    for image in named:
        tag = image.rpartition(":")[2]
        assert ":" in image, image
        assert tag == "bookworm-slim" or re.match(r"v?\d+(\.\d+)+|\d{3}$|[0-9a-f]{12}$", tag), f"{image} is not pinned by version"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_container_is_hardened_limited_and_checked(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("mem_limit")
    own = name in IMAGES or service["image"].startswith("headrace/c")
    assert service.get("read_only") or not own, "our services write nothing to their image"
    if name in ONCE:
        assert service["restart"] == "no"
    else:
        assert service["restart"] in ("unless-stopped", "on-failure")
        assert "healthcheck" in service or name in IMAGES, "our images bring theirs"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_a_service_waits_for_is_there_in_its_profiles(name: str) -> None:
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert _profiles(name) <= _profiles(other) or how.get("required") is False, other
        healthy, done = "service_healthy", "service_completed_successfully"
        assert how["condition"] == (done if other in ONCE else healthy), other


def test_ports_are_on_the_address_of_the_settings_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"\$\{BIND_HOST\}:\$\{[A-Z_]+_PORT\}:\d+", port) for port in ports)
    assert len({port.split(":")[1] for port in ports}) == len(ports)


def test_every_setting_that_is_asked_for_is_one() -> None:
    for path in (ROOT / "docker-compose.yml", *OVERRIDES):
        text = re.sub(r"#.*", "", path.read_text())
        asked = set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", text))
        assert asked - set(EXAMPLE) - FROM_ENVIRONMENT == set(), path


def test_every_file_that_is_mounted_is_there() -> None:
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", []) if str(mount).startswith("./")]
    assert mounts
    assert [mount for mount in mounts if not (ROOT / mount).exists()] == []


def test_an_image_can_be_made_of_what_the_engine_is_given() -> None:
    """What is copied into an image is not left out by .dockerignore."""
    given = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {folder for image in IMAGES.values() for folder in image["code"]}
    for path in DOCKERFILES:
        if path.parent.name == "minio":  # its context is docker/
            continue
        for text in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", path.read_text(), re.MULTILINE):
            copied |= {each.split("/")[0] for each in text.split()}
    assert {"ml", "requirements", "docker"} <= copied
    assert copied - given == {"."}


def test_memory_fits() -> None:
    """One-shot services have ended before the others work."""
    running = [name for name in SERVICES if name not in ONCE]
    core = sum(_limit(name) for name in running if "core" in _profiles(name))
    assert core <= 4096
    assert sum(_limit(name) for name in running if "full" in _profiles(name)) <= 8192


def test_every_image_of_ours_has_its_service() -> None:
    ours = {service["build"]["args"]["SERVICE"] for service in SERVICES.values() if "SERVICE" in service.get("build", {}).get("args", {})}
    assert ours == set(IMAGES)


@pytest.mark.parametrize("name", sorted(set(IMAGES) - {"cli"}))
def test_an_image_holds_what_its_code_imports(name: str) -> None:
    """Of the code that the service's main module leads to, by following its imports."""
    image = IMAGES[name]
    seen, others = _imported(image["run"][1])
    assert [path for path in seen if path.relative_to(ROOT).parts[0] not in image["code"]] == []
    assert len(seen) > 2
    distributions = packages_distributions()
    stated = {canonical(re.split(r"[\[<>=]", each)[0]) for each in image["packages"]} | _WITH_OTHERS
    wanted = {
        each: {canonical(one) for one in distributions[each]} for each in others - set(sys.stdlib_module_names) if each in distributions
    }
    assert {each: those for each, those in wanted.items() if not those & stated} == {}


def test_the_image_in_which_models_are_made_holds_its_code() -> None:
    seen, _ = _imported("ml", without={"ml.demo", "ml.drift_demo"})
    text = (ROOT / "docker" / "airflow" / "Dockerfile").read_text()
    copied = [ROOT / each for line in re.findall(r"^COPY (?!--)(.*) /app/", text, re.MULTILINE) for each in line.split()]
    assert ROOT / "ml" / "engines.py" in seen
    assert [path for path in seen if not any(path.is_relative_to(each) for each in copied)] == []


def _imported(main: str, without: Collection[str] = ()) -> tuple[set[Path], set[str]]:
    """The files of ours that this module leads to, and the names of the packages of others."""
    seen: set[Path] = set()
    others: set[str] = set()
    queue = [main, f"{main}.__main__"]
    while queue:
        name = queue.pop()
        path = None if name in without else _module(name)
        if path is None or path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
            queue += [each for each in names if _module(each)]
            others |= {each.split(".")[0] for each in names if not (ROOT / each.split(".")[0]).is_dir()}
    return seen, others


# Come with what is stated: pydantic with pydantic-settings, and so on.
_WITH_OTHERS = {
    "pydantic",
    "googleapis-common-protos",
    "sqlalchemy",
    "starlette",
    "urllib3",
    "elastic-transport",
    "grpcio-tools",
    "certifi",
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _module(name: str) -> Path | None:
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def test_alerts_and_dashboards_ask_only_for_metrics_that_there_are() -> None:
    code = "".join(path.read_text() for name in ("headrace", "collector", "enrichment_api") for path in (ROOT / name).glob("*.py"))
    there = set(re.findall(r'"((?:headrace|enrichment_api)_[a-z_]+)"', code))
    asked = [rule["expr"] for group in _alerts()["groups"] for rule in group["rules"]]
    for path in (ROOT / "docker" / "grafana" / "dashboards").glob("*.json"):
        asked += [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]
    named = {re.sub(r"_bucket$", "", name) for text in asked for name in re.findall(r"\b(?:headrace|enrichment_api)_[a-z_]+", text)}
    assert len(named) > 15
    assert {name for name in named if name not in there and name.removesuffix("_total") not in there} == set()


def test_an_alert_says_what_to_do() -> None:
    rules = [rule for group in _alerts()["groups"] for rule in group["rules"]]
    assert all({"summary", "action"} <= set(rule["annotations"]) and rule["labels"]["severity"] in ("page", "ticket") for rule in rules)


def _alerts() -> Any:
    return yaml.safe_load((ROOT / "docker" / "prometheus" / "alerts.yml").read_text())


def test_what_prometheus_asks_is_where_the_services_listen() -> None:
    jobs = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    addresses = {target for job in jobs for each in job.get("static_configs", []) for target in each["targets"]}
    found = [each for job in jobs for each in job.get("dns_sd_configs", [])]
    addresses |= {f"{name}:{each['port']}" for each in found for name in each["names"]}
    checked = {image["healthy"][1].split("/")[2].replace("127.0.0.1", name) for name, image in IMAGES.items() if "healthy" in image}
    assert addresses == checked - {"shop:8020"}


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ('headrace_waiting 0.0\nheadrace_lag_messages{partition="0",topic="events.raw"} 3.0\n', 0),
        ('headrace_waiting 1.0\nheadrace_lag_messages{partition="0",topic="events.raw"} 3.0\n', 1),
        ("headrace_waiting 0.0\n", 1),
        ("", 1),
    ],
)
def test_a_consumer_is_well_while_it_reads_and_waits_for_nobody(metrics: str, code: int) -> None:
    assert (healthy._idle(metrics) == "") == (code == 0)


def production(**settings: str) -> subprocess.CompletedProcess[str]:
    """What `docker/with-secrets.sh` makes of these settings: it starts a program that prints LAKE_CATALOG_URL."""
    script = ["sh", str(ROOT / "docker" / "with-secrets.sh"), "sh", "-c", 'printf %s "${LAKE_CATALOG_URL:-}"']
    return subprocess.run(script, env={"PATH": os.environ["PATH"], **settings}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "HEADRACE_PROFILE"),
        ({"HEADRACE_PROFILE": "development"}, "HEADRACE_PROFILE"),
        ({"HEADRACE_PROFILE": "production", "HEADRACE_WRITE_KEY": "0123456789abcdef"}, "HEADRACE_WRITE_KEY"),
        ({"HEADRACE_PROFILE": "production", "SUPERSET_ADMIN_PASSWORD": "of-development"}, "SUPERSET_ADMIN_PASSWORD"),
    ],
)
def test_production_refuses_what_development_has(settings: dict[str, str], named: str) -> None:
    done = production(**settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert named in done.stderr
    assert "of-development" not in done.stderr


def test_a_secret_is_put_into_the_settings_that_ask_for_it() -> None:
    settings = {"HEADRACE_PROFILE": "production", "HEADRACE_WRITE_KEY": "", "FROM_SECRETS": "LAKE_CATALOG_URL", "LOADER_PASSWORD": "p"}
    assert production(**settings, LAKE_CATALOG_URL="postgresql://loader:${LOADER_PASSWORD}@h/lake").stdout == "postgresql://loader:p@h/lake"


def test_a_secret_that_is_to_be_forgotten_is_not_seen_by_the_program() -> None:
    settings = {"HEADRACE_PROFILE": "production", "FROM_SECRETS": "LAKE_CATALOG_URL", "LOADER_PASSWORD": "p"}
    settings["LAKE_CATALOG_URL"] = "${LOADER_PASSWORD}${OPERATOR_PASSWORD:-}"
    assert production(**settings, OPERATOR_PASSWORD="o", FORGET_SECRETS="LOADER_PASSWORD OPERATOR_PASSWORD").stdout == "po"
    assert production(**settings, FORGET_SECRETS="LOADER_PASSWORD LAKE_CATALOG_URL").stdout == ""


def test_curation_knows_every_setting_of_its_own_that_production_gives_it() -> None:
    airflow = yaml.load((ROOT / "docker" / "compose.production.yml").read_text(), _Overlay)["services"]["airflow-scheduler"]  # noqa: S506
    secrets = {secret for secret in airflow["secrets"] if isinstance(secret, str)}
    names = {*airflow["environment"], *secrets} - {*airflow["environment"]["FORGET_SECRETS"].split()}
    assert "CURATION_PASSWORD" in secrets
    with pytest.raises(OptionsError) as refused:  # most settings are missing here
        options(dict.fromkeys(names, "x"))
    assert [problem for problem in refused.value.problems if "no such setting" in problem] == []


def test_every_secret_of_production_is_written(tmp_path: Path) -> None:
    asked = set(yaml.load((ROOT / "docker" / "compose.production.yml").read_text(), _Overlay)["secrets"])  # noqa: S506
    written = envfile.write_secrets(tmp_path, ROOT / ".env.example")
    assert asked <= set(written)
    values = [(tmp_path / name).read_text() for name in written]
    assert len(set(values)) == len(values)
    assert all(len(value) >= 24 for value in values)
    assert (tmp_path / "CA_KEY").stat().st_mode & 0o777 == 0o600
    assert "CA_KEY" not in asked
    assert envfile.write_secrets(tmp_path, ROOT / ".env.example") == []


def test_a_server_s_certificate_is_good_for_its_name_alone(tmp_path: Path) -> None:
    envfile.write_secrets(tmp_path, ROOT / ".env.example")
    check = ["openssl", "verify", "-CAfile", str(tmp_path / "CA_CERT"), "-x509_strict"]
    for name, code in (("trino", 0), ("localhost", 0), ("elasticsearch", 2)):
        command = [*check, "-verify_hostname", name, str(tmp_path / "TRINO_CERT")]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code, name
    other = tmp_path / "other"
    envfile.write_secrets(other, ROOT / ".env.example")
    foreign = ["openssl", "verify", "-CAfile", str(other / "CA_CERT"), str(tmp_path / "TRINO_CERT")]
    assert subprocess.run(foreign, capture_output=True, check=False).returncode == 2


def test_what_is_removed_is_made_anew(tmp_path: Path) -> None:
    envfile.write_secrets(tmp_path, ROOT / ".env.example")
    before = (tmp_path / "TRINO_USERS").read_text()
    for name in ("OPERATOR_PASSWORD", "ELASTICSEARCH_KEY"):
        (tmp_path / name).unlink()
    assert set(envfile.write_secrets(tmp_path, ROOT / ".env.example")) == {
        *("OPERATOR_PASSWORD", "TRINO_USERS"),
        *("ELASTICSEARCH_CERT", "ELASTICSEARCH_KEY", "ELASTICSEARCH_PEM"),
    }
    assert (tmp_path / "TRINO_USERS").read_text() != before


def test_trino_s_users_are_those_of_the_passwords(tmp_path: Path) -> None:
    envfile.write_secrets(tmp_path, ROOT / ".env.example")
    lines = (tmp_path / "TRINO_USERS").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["curation", "operator", "superset"]
    for name, rounds, salt, digest in (line.split(":") for line in lines):
        password = (tmp_path / f"{name.upper()}_PASSWORD").read_bytes()
        assert hashlib.pbkdf2_hmac("sha1", password, bytes.fromhex(salt), int(rounds)).hex() == digest


@pytest.mark.parametrize("name", ["config", "catalog/elasticsearch"])
def test_trino_s_configuration_in_production_is_the_common_one_and_more(name: str) -> None:
    common = (ROOT / "runtime" / "servers" / "trino" / f"{name}.properties").read_text()
    production_s = (ROOT / "docker" / "trino" / f"{Path(name).name}.properties").read_text()
    assert production_s.startswith(f"{common}\n# ---- production")


def test_who_fills_the_index_is_not_who_reads_it() -> None:
    loader, trino = (accounts.search_role(name)["indices"][0] for name in ("loader", "trino"))
    assert {"index", "create", "create_index"} <= {*loader["privileges"]}
    assert "delete" not in loader["privileges"]
    assert {*trino["privileges"]} == {"read", "view_index_metadata", "monitor"}
    assert accounts.search_role("trino")["cluster"] == ["monitor"]


def test_who_reads_the_lake_cannot_write_it() -> None:
    reads, writes = (json.dumps(accounts.policy("lake", may)) for may in (False, True))
    assert "s3:GetObject" in reads
    assert not [word for word in ("Put", "Delete", "*:", "admin") if word in reads]
    assert "s3:PutObject" in writes
    assert "lake/*" in writes


@pytest.mark.parametrize("image", sorted(standins.IMAGES.values()))
def test_a_stand_in_has_the_one_tag_that_the_files_name(image: str) -> None:
    assert standins.tag(image).rpartition(":")[0] == image
