"""What the API and the worker behind the queue are both made of, by the settings."""

from enrichment_api import scores
from enrichment_api.online import READ_SECONDS, OnlineCopy, OnlineCustomers, store
from enrichment_api.refresh import Refresher
from enrichment_api.scores import ScoresCopy
from enrichment_api.settings import Settings
from enrichment_api.shadow import Shadow
from enrichment_api.watch import Watch
from headrace.lake import load_catalog
from headrace.online import OnlineStore


def watch_of(settings: Settings) -> tuple[Watch, Shadow]:
    """What serves, and what scores in its shadow; neither is started. Raises ModelError or ReleaseError."""
    shadow = Shadow(settings.shadow_file, settings.shadow_max_bytes)
    return Watch(settings.model_dir, settings.releases, shadow, settings.release_seconds, settings.cache_rows), shadow


def refresher_of(settings: Settings) -> Refresher:
    """What keeps the customers' states in step with the lake: in memory, or in the online store. It is not started."""
    copy = None
    if settings.features == "redis":
        url = settings.redis_url.get_secret_value()
        copy = OnlineCopy(store(url, timeout=10), OnlineCustomers(store(url)))
    return Refresher(lambda: load_catalog(settings), settings.refresh_seconds, copy=copy)


def scores_of(settings: Settings) -> tuple[dict[str, OnlineStore], list[ScoresCopy]]:
    """Where scores that were made in batches are looked up, by the table's name, and what copies them there; it is not started."""
    url = settings.redis_url.get_secret_value()
    stores = {name: scores.store(url, name, READ_SECONDS) for name in settings.score_tables}
    copies = [
        ScoresCopy(lambda: load_catalog(settings), scores.store(url, name, 10), ("gold", name), settings.refresh_seconds) for name in stores
    ]
    return stores, copies
