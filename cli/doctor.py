"""`headrace doctor`: does each server answer, and is the base there on which the services stand?"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import psycopg2
import typer
from confluent_kafka import KafkaException
from minio import Minio

from cli.context import ROOT, out, settings
from cli.kafka import admin_of
from cli.schemas import problems
from headrace.kafka import topics

Env = Mapping[str, str]
_AGAIN = "`make up` makes what is missing"


class Ill(Exception):
    """What is wrong with one part, and what to do."""


def doctor() -> None:
    """Check every server and what must be there: one line each; status 1 where something is wrong."""
    env = settings()
    checks = CORE | (FULL if env["PROFILE"] == "full" else {})
    with ThreadPoolExecutor(len(checks)) as pool:
        outcomes = dict(zip(checks, pool.map(lambda check: _outcome(check, env), checks.values()), strict=True))
    for name, (well, sentence) in outcomes.items():
        mark = "[green]ok[/]  " if well else "[red]ill[/] "
        out.print(f"{mark} {name:<15} ", end="")
        out.print(sentence, markup=False, highlight=False, soft_wrap=True)
    if not all(well for well, _ in outcomes.values()):
        raise typer.Exit(1)


def _outcome(check: Callable[[Env], str], env: Env) -> tuple[bool, str]:
    try:
        return True, check(env)
    except Ill as ill:
        return False, str(ill)


def _silent(address: str) -> Ill:
    return Ill(f"not reachable at {address}: `make up` starts it, `make status` shows its log")


def _get(url: str, wanted: int = 200) -> httpx.Response:
    try:
        answer = httpx.get(url, timeout=20)
    except httpx.TimeoutException:
        raise Ill(f"{url} does not answer within 20 s: it may be starting, or this machine too busy: `make status` shows its log") from None
    except httpx.TransportError:
        raise _silent(url) from None
    if answer.status_code != wanted:
        raise Ill(f"{url} answers {answer.status_code}: {' '.join(answer.text.split())[:200]}: see its log (`make status`)")
    return answer


def _missing(what: str, names: set[str]) -> None:
    if names:
        raise Ill(f"no {what} {', '.join(sorted(names))}: {_AGAIN}")


def _plan(env: Env) -> str:
    found, registry = problems(ROOT / env["SCHEMAS_DIR"])
    if found or registry is None:
        raise Ill(f"{len(found)} problems, such as {found[0]}: `headrace schemas check` says them all")
    return f"{len(registry.types)} event types"


def _kafka(env: Env) -> str:
    servers = env["KAFKA_BOOTSTRAP_SERVERS"]
    try:
        there = admin_of(env).list_topics(timeout=5).topics
    except KafkaException:
        raise _silent(servers) from None
    wanted = topics(int(env["KAFKA_PARTITIONS"]))
    _missing("topic", set(wanted) - set(there))
    return f"{servers}, {len(wanted)} topics"


def _elasticsearch(env: Env) -> str:
    url = env["ELASTICSEARCH_URL"]
    health = _get(f"{url}/_cluster/health").json()["status"]
    if health == "red":
        raise Ill(f"{url}: its health is red: a shard is lost, see its log (`make status`)")
    templates = {one["name"] for one in _get(f"{url}/_index_template").json()["index_templates"]}
    _, registry = problems(ROOT / env["SCHEMAS_DIR"])
    wanted = {"headrace-events", "headrace-dead-letters"} | {f"headrace-events-{name}" for name in (registry.types if registry else ())}
    if wanted - templates:
        raise Ill(
            f"no index template {', '.join(sorted(wanted - templates))}: the real-time loader writes them at its start (`make status`)"
        )
    return f"{url}, {len(wanted)} index templates, {health}"


def _storage(env: Env) -> str:
    endpoint = urlsplit(env["S3_ENDPOINT"])
    _get(f"{env['S3_ENDPOINT']}/minio/health/live")
    bucket = urlsplit(env["LAKE_WAREHOUSE"]).netloc
    client = Minio(endpoint.netloc, env["S3_ACCESS_KEY"], env["S3_SECRET_KEY"], region=env["S3_REGION"], secure=endpoint.scheme == "https")
    try:
        there = client.bucket_exists(bucket)
    except Exception as error:  # the client raises many kinds, all of which mean that the bucket cannot be used
        raise Ill(f"bucket {bucket}: {error}: are S3_ACCESS_KEY and S3_SECRET_KEY those of the server?") from None
    _missing("bucket", set() if there else {bucket})
    return f"{env['S3_ENDPOINT']}, bucket {bucket}"


def _catalog(env: Env) -> str:
    address = env["POSTGRES_URL"].rpartition("@")[2]
    try:
        connection = psycopg2.connect(env["LAKE_CATALOG_URL"], connect_timeout=5)
    except psycopg2.OperationalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise (Ill(f"{address}: {reason}: {_AGAIN}") if "FATAL" in reason else _silent(address)) from None
    try:
        with connection.cursor() as cursor:
            cursor.execute("select table_namespace || '.' || table_name from iceberg_tables where catalog_name = 'lake'")
            tables = {name for (name,) in cursor.fetchall()}
    except psycopg2.Error:
        raise Ill(f"{address}: no Iceberg catalog in the database lake: {_AGAIN}") from None
    finally:
        connection.close()
    _missing("table", {"bronze.events", "bronze.dead_letters"} - tables)
    return f"{address}, {len(tables)} tables in the lake"


def _at(setting: str, path: str) -> Callable[[Env], str]:
    def check(env: Env) -> str:
        url = f"http://{env['BIND_HOST']}:{env[setting]}"
        _get(url + path)
        return url

    return check


def _collector(env: Env) -> str:
    url = env["HEADRACE_COLLECTOR_URL"]
    _get(f"{url}/readyz")
    return url


def _trino(env: Env) -> str:
    url = env["TRINO_URL"]
    if _get(f"{url}/v1/info").json()["starting"]:
        raise Ill(f"{url}: it is still starting: try again in half a minute")
    from trino.exceptions import Error

    from headrace.trino import connection

    try:
        cursor = connection(env, "headrace").cursor()
        cursor.execute("show catalogs")
        _missing("catalog", {"lake", "elasticsearch"} - {row[0] for row in cursor.fetchall()})
    except Error as error:
        raise Ill(f"{url}: {error}") from None
    return f"{url}, catalogs lake and elasticsearch"


def _airflow(env: Env) -> str:
    url = env["AIRFLOW_URL"]
    parts = _get(f"{url}/api/v2/monitor/health").json()
    ill = sorted(name for name, part in parts.items() if part["status"] not in ("healthy", None))
    if ill:
        raise Ill(f"{url}: {', '.join(ill)} not healthy: see its log (`make status`)")
    return url


CORE: dict[str, Callable[[Env], str]] = {
    "tracking plan": _plan,
    "Kafka": _kafka,
    "Elasticsearch": _elasticsearch,
    "MinIO": _storage,
    "PostgreSQL": _catalog,
    "collector": _collector,
    "enrichment API": _at("ENRICHMENT_API_PORT", "/readyz"),
    "enricher": _at("ENRICHER_METRICS_PORT", "/metrics"),
    "realtime loader": _at("REALTIME_LOADER_METRICS_PORT", "/metrics"),
    "batch loader": _at("BATCH_LOADER_METRICS_PORT", "/metrics"),
    "shop page": _at("SHOP_PORT", "/healthz"),
}
FULL: dict[str, Callable[[Env], str]] = {"Trino": _trino, "Airflow": _airflow, "Superset": _at("SUPERSET_PORT", "/health")}
