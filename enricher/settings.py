"""Settings of the enricher (prefix ENRICHER_)."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace import service


class EnricherSettings(service.ConsumerSettings):
    """A batch is one scoring request, so `max_batch_messages` is at most the 1,000 that the enrichment API takes."""

    model_config = SettingsConfigDict(env_prefix="ENRICHER_")

    group: str = "headrace.enricher"
    enrichment_api_url: str = Field(validation_alias="ENRICHMENT_API_URL")
    max_batch_messages: int = Field(default=1000, ge=1, le=1000)
    max_batch_bytes: int = Field(default=16_000_000, ge=1)
    max_batch_seconds: float = Field(default=0.2, gt=0)
    scoring_timeout_seconds: float = Field(default=10.0, gt=0)
