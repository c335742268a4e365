"""What the measurements compare with and make load by, built from source once: the OpenTelemetry Collector and ghz (Go), wrk (Debian)."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from runtime.fetching import built_as_a_whole, pip_target, run
from tests.collector_real_kafka import ROOT
from verify.ports import free_port

OTEL_VERSION = "0.155.0"
_TOOLS = ROOT / ".runtime" / "bench"
_GHZ = "github.com/bojand/ghz/cmd/ghz@v0.120.0"
_BUILDER = f"go.opentelemetry.io/collector/cmd/builder@v{OTEL_VERSION}"
_MANIFEST = f"""
dist: {{name: otelcol, output_path: {{folder}}, version: {OTEL_VERSION}}}
receivers: [{{gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v{OTEL_VERSION}}}]
exporters: [{{gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/kafkaexporter v{OTEL_VERSION}}}]
"""
_CONFIG = """
receivers:
  otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}
exporters:
  kafka:
    brokers: ["{kafka}"]
    logs: {{topic: {topic}, encoding: raw}}
    sending_queue: {{enabled: false}}
    producer: {{required_acks: -1, compression: {compression}, linger: 5ms}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines: {{logs: {{receivers: [otlp], exporters: [kafka]}}}}
"""


def wrk() -> str:
    """The path of wrk; installs it where it is missing. Raises SystemExit."""
    if not shutil.which("wrk"):
        install = "apt-get update -qq && apt-get install -y -qq wrk"
        asked = ["sh", "-c", install] if os.geteuid() == 0 else ["sudo", "-n", "sh", "-c", install]
        if subprocess.run(asked, capture_output=True, check=False).returncode:
            raise SystemExit("headrace: wrk is missing: install it with: sudo apt-get install -y wrk")
    return "wrk"


def ghz() -> Path:
    """The path of ghz, a load generator for gRPC."""
    with built_as_a_whole(_TOOLS / "ghz", _GHZ) as fresh:
        if fresh is not None:
            Console().print("Building ghz (once)")
            run([str(_go()), "install", _GHZ], "building ghz", _environment(fresh), log=_TOOLS / "ghz.log")
    return _TOOLS / "ghz" / "ghz"


def streams() -> Path:
    """The path of our load generator for a bidirectional stream of gRPC."""
    source = ROOT / "benchmarks" / "streams"
    with built_as_a_whole(_TOOLS / "streams", "".join((source / name).read_text() for name in ("main.go", "go.mod", "go.sum"))) as fresh:
        if fresh is not None:
            Console().print("Building the load on streams (once)")
            run(
                [str(_go()), "-C", str(source), "build", "-o", str(fresh), "."],
                "building it",
                _environment(fresh),
                log=_TOOLS / "streams.log",
            )
    return _TOOLS / "streams" / "streams"


def otel() -> Path:
    """The path of an OpenTelemetry Collector with the OTLP receiver and the Kafka exporter."""
    with built_as_a_whole(_TOOLS / "otel", _BUILDER + _MANIFEST) as fresh:
        if fresh is not None:
            Console().print("Building the OpenTelemetry Collector (once, some minutes)")
            manifest = fresh / "manifest.yaml"
            manifest.write_text(_MANIFEST.replace("{folder}", str(fresh)))
            env = _environment(fresh)
            run([str(_go()), "install", _BUILDER], "building the builder", env, log=_TOOLS / "builder.log")
            run([str(fresh / "builder"), "--config", str(manifest)], "building the collector", env, log=_TOOLS / "otel.log")
    return _TOOLS / "otel" / "otelcol"


@contextmanager
def otel_running(kafka: str, topic: str, folder: Path, compression: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A collector that writes each log record's body to `topic`: where its logs go (a URL), and its process."""
    port = free_port()
    config = folder / "otel.yaml"
    config.write_text(_CONFIG.format(port=port, kafka=kafka, topic=topic, compression=compression))
    with (folder / "otel.log").open("wb") as log, subprocess.Popen([otel(), "--config", str(config)], stdout=log, stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}/v1/logs", process
        finally:
            process.terminate()


def _go() -> Path:
    toolchain = _TOOLS / "go"
    compiler = toolchain / "go" / "bin" / "go"
    if not compiler.exists():
        pip_target(ROOT / "requirements" / "go.txt", toolchain, ROOT)
    return compiler


def _environment(target: Path) -> Mapping[str, str]:
    env = {key: value for key, value in os.environ.items() if key not in ("GOROOT", "GOFLAGS")}
    env["PATH"] = f"{_go().parent}:{env['PATH']}"
    return env | {"GOBIN": str(target), "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
