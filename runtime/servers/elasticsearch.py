"""Elasticsearch, put together from its published jars, which lack a launcher and `GET /`: two small Java files add them."""

import shutil
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime import java
from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.fetching import built_as_a_whole, digest_of
from runtime.maven import fetch_jars
from runtime.probes import http_ok

_HERE = Path(__file__).parent
_SOURCES = _HERE / "elasticsearch"
_POM = _HERE.parent / "maven" / "elasticsearch"
_MODULE = "transport-netty4"
_MODULE_FILES = ("plugin-descriptor.properties", "entitlement-policy.yaml")
_BUILT_FROM = ("Launcher.java", "RootPlugin.java", "log4j2.properties", "plugin-descriptor.properties")
_RELEASE = "17"


class Elasticsearch:
    """One node, no security, loopback only."""

    name = "elasticsearch"
    profile = "core"
    apt: Sequence[str] = (java.PACKAGE, "maven")

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The jars, and the home folder made of them."""
        jars = place.servers / "elasticsearch-jars"
        fetch_jars(_POM, jars, say)
        stamp = digest_of(_POM / "sha256.txt", *(_SOURCES / name for name in _BUILT_FROM))
        with built_as_a_whole(self._home(place), stamp) as home:
            if home is not None:
                say("compiling the launcher")
                _assemble(jars, home)

    def configure(self, place: Place) -> None:
        """The files of runtime/servers/elasticsearch as they are."""
        conf = place.conf(self.name)
        for name in ("elasticsearch.yml", "log4j2.properties"):
            shutil.copyfile(_SOURCES / name, conf / name)

    def programs(self, place: Place) -> Sequence[Program]:
        """The node."""
        home = self._home(place)
        temp = place.state / "run" / "elasticsearch-tmp"
        command = [
            *(str(java.binary("java")), "-Xms512m", "-Xmx1g", "-XX:+UseSerialGC", "-Xss1m"),
            *("-Dfile.encoding=UTF-8", "-Djava.awt.headless=true", f"-Djava.io.tmpdir={temp}", "-Dlog4j2.disable.jmx=true"),
            *("-Dio.netty.noUnsafe=true", "-Dio.netty.noKeySetOptimization=true", "-Dio.netty.allocator.numDirectArenas=0"),
            "-XX:-OmitStackTraceInFastThrow",
            *("--module-path", str(home / "lib"), "--add-modules=jdk.net,jdk.management.agent,ALL-MODULE-PATH"),
            *("-cp", str(home / "launcher"), "Launcher", str(home), str(place.conf(self.name))),
        ]
        temp.mkdir(parents=True, exist_ok=True)
        address = place.url("ELASTICSEARCH_PORT")
        return [
            Program(
                name=self.name,
                command=command,
                ready=lambda: http_ok(f"{address}/_cluster/health?wait_for_status=yellow&timeout=1s"),
                environment={
                    "ELASTICSEARCH_DATA": str(place.data(self.name).resolve()),
                    "ELASTICSEARCH_LOGS": str((place.state / "log").resolve()),
                    "ELASTICSEARCH_BIND_HOST": place.env["BIND_HOST"],
                    "ELASTICSEARCH_BIND_PORT": place.env["ELASTICSEARCH_PORT"],
                },
                directory=home,
                ports={"http": "ELASTICSEARCH_PORT"},
                url=address,
                stop_within=30,
            )
        ]

    @staticmethod
    def _home(place: Place) -> Path:
        return place.servers / "elasticsearch"


def _assemble(jars: Path, home: Path) -> None:
    """The folders that a node expects: lib, modules, plugins; and our two classes."""
    for folder in ("lib", f"modules/{_MODULE}", "plugins/headrace-root", "launcher", "config", "classes"):
        (home / folder).mkdir(parents=True)
    for jar in jars.glob("*.jar"):
        is_module = jar.name.startswith(("netty-", f"{_MODULE}-"))
        (home / (f"modules/{_MODULE}" if is_module else "lib") / jar.name).hardlink_to(jar)
    with zipfile.ZipFile(next(jars.glob(f"{_MODULE}-*.jar"))) as archive:
        for name in _MODULE_FILES:
            (home / "modules" / _MODULE / name).write_bytes(archive.read(f"META-INF/es-plugins/{_MODULE}/{name}"))
    _compile(home, "Launcher.java", home / "launcher")
    _compile(home, "RootPlugin.java", home / "classes")
    plugin = home / "plugins" / "headrace-root"
    with zipfile.ZipFile(plugin / "headrace-root.jar", "w") as archive:
        for path in (home / "classes").rglob("*.class"):
            archive.write(path, path.relative_to(home / "classes"))
    shutil.copyfile(_SOURCES / "plugin-descriptor.properties", plugin / "plugin-descriptor.properties")


def _compile(home: Path, source: str, target: Path) -> None:
    options = ["--release", _RELEASE, "-nowarn", "-cp", f"{home / 'lib'}/*", "-d", str(target)]
    command = [str(java.binary("javac")), *options, str(_SOURCES / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeFailure(f"compiling {_SOURCES / source} failed: {done.stderr.strip()[:600]}")
