"""Our own services as programs."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.fetching import digest_of, fetch_data
from runtime.probes import http_ok
from runtime.supervisor import MARK, clean_environment, log_path


class Services:
    """Collector, enrichment API, enricher, loaders, shop and the replay of real purchases."""

    name = "services"
    profile = "core"
    apt: Sequence[str] = ()

    def fetch(self, place: Place, say: Callable[[str], None]) -> None:
        """The CDNOW purchases that the replay sends and the model learns from."""
        fetch_data(place.root, "cdnow", ("CDNOW_master.txt",), say)

    def configure(self, place: Place) -> None:
        """They read their settings from the environment. The sum of the schemas stands here, so that a changed plan restarts them."""
        schemas = place.root / place.env["SCHEMAS_DIR"]
        read = sorted(path for path in schemas.rglob("*") if path.is_file() and "examples" not in path.parts)
        (place.conf(self.name) / "schemas.sha256").write_text(digest_of(*read) + "\n")

    def programs(self, place: Place) -> Sequence[Program]:
        """All of them; each waits for what it cannot work without. Shop and replay use the ready-made key: production has neither."""
        api_docs = "/docs"
        services = [
            _service(
                *(place, "collector", "collector.main"),
                {"REST": "COLLECTOR_REST_PORT", "gRPC": "COLLECTOR_GRPC_PORT"},
                ready="/readyz",
                after=["kafka"],
                look=api_docs,
            ),
            _service(
                *(place, "enrichment-api", "enrichment_api.main"),
                {"HTTP": "ENRICHMENT_API_PORT"},
                ready="/readyz",
                look=api_docs,
                prepare=lambda: _train(place),
            ),
            _service(*(place, "enricher", "enricher.main"), {"metrics": "ENRICHER_METRICS_PORT"}, after=["kafka", "enrichment-api"]),
            _service(
                *(place, "realtime-loader", "loaders.realtime.main"),
                {"metrics": "REALTIME_LOADER_METRICS_PORT"},
                after=["kafka", "elasticsearch"],
            ),
            _service(
                *(place, "batch-loader", "loaders.batch.main"),
                {"metrics": "BATCH_LOADER_METRICS_PORT"},
                after=["kafka", "minio", "postgres"],
            ),
        ]
        if place.env.get("SCORING_WORKER") == "on":
            worker = _service(
                *(place, "scoring-worker", "enrichment_api.queue.main"),
                {"metrics": "SCORING_WORKER_METRICS_PORT"},
                after=["kafka", "enrichment-api"],
            )
            services.append(worker)
        if place.env.get("HEADRACE_PROFILE") == "production":
            return services
        services.append(
            _service(*(place, "shop", "producers.website.main"), {"HTTP": "SHOP_PORT"}, ready="/", after=["collector"], look="/")
        )
        replay = Program(
            name="cdnow-replay",
            command=[sys.executable, "-m", "producers.cdnow", "--speed", "gentle"],
            ready=lambda: True,
            after=[service.name for service in services],
            ends=True,
        )
        return [*services, replay]


def _service(
    place: Place,
    name: str,
    module: str,
    ports: Mapping[str, str],
    *,
    ready: str = "/metrics",
    after: Sequence[str] = (),
    look: str | None = None,
    prepare: Callable[[], None] | None = None,
) -> Program:
    """A service whose first port says at the path `ready` that it can work; people look at `look`."""
    tls = name == "collector" and place.env.get("COLLECTOR_TLS_CERT_FILE")
    address = place.url(next(iter(ports.values())), "https" if tls else "http")
    return Program(
        name=name,
        command=[sys.executable, "-m", module],
        ready=lambda: http_ok(address + ready),
        after=after,
        ports=ports,
        prepare=prepare,
        url=address + look if look else None,
        stop_within=30,
    )


def _train(place: Place) -> None:
    """Make the model of the enrichment API where there is none that it can use."""
    log = log_path(place, "enrichment-api-train")
    with log.open("w") as output:
        environment = {**clean_environment(), **place.env, MARK: str(place.state)}
        command = [sys.executable, "-m", "enrichment_api.train", "--if-missing"]
        done = subprocess.run(command, cwd=place.root, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        last = "\n".join(Path(log).read_text().splitlines()[-5:])
        raise RuntimeFailure(f"training the model failed (log: {log}):\n{last}")
