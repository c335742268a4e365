"""Start the enrichment API: `python -m enrichment_api.main`."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from enrichment_api.app import Limits, make_app
from enrichment_api.looking import Looking
from enrichment_api.model import ModelError
from enrichment_api.release import ReleaseError
from enrichment_api.settings import Settings
from enrichment_api.shadow import Shadow
from enrichment_api.watch import Watch
from enrichment_api.wiring import refresher_of, scores_of, watch_of
from headrace.observability import set_up_logging


def main() -> None:
    """Serve until SIGTERM."""
    settings = Settings.load()
    set_up_logging("enrichment_api", settings.log_level, settings.log_format)
    try:
        watch, shadow = watch_of(settings)
    except (ModelError, ReleaseError) as error:
        sys.exit(f"enrichment_api: {error} (settings ENRICHMENT_API_MODEL_DIR, ENRICHMENT_API_RELEASE_FILE)")
    for card in watch.serving.cards:
        structlog.get_logger().info("model loaded", model=card.model, version=card.version, auc=card.metrics[card.model].auc)
    refresher = refresher_of(settings)
    stores, copies = scores_of(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts: Sequence[Looking | Shadow | Watch] = (refresher, *copies, shadow, watch)
        for part in parts:
            part.start()
        yield
        for part in reversed(parts):
            part.stop()

    limits = Limits(settings.max_body_bytes, settings.max_in_flight, settings.max_in_flight_bytes, settings.body_seconds)
    app = make_app(lambda: watch.serving, lambda: refresher.customers, limits, lifespan, lambda: watch.refused, stores=stores)
    uvicorn.run(app, host=settings.bind_host, port=settings.port, log_level="warning", access_log=False, timeout_graceful_shutdown=5)


if __name__ == "__main__":
    main()
