"""Settings of the enricher (prefix ENRICHER_)."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace import service


class EnricherSettings(service.ConsumerSettings):
    """A batch is one transaction; its events go to the enrichment API in requests of at most 1,000."""

    model_config = SettingsConfigDict(env_prefix="ENRICHER_")

    group: str = "headrace.enricher"
    enrichment_api_url: str = Field(validation_alias="ENRICHMENT_API_URL")
    max_batch_messages: int = Field(default=10_000, ge=1)
    max_batch_bytes: int = Field(default=16_000_000, ge=1)
    max_batch_seconds: float = Field(default=0.2, gt=0)
    scoring_timeout_seconds: float = Field(default=5.0, gt=0, le=30)  # the transaction, which is open meanwhile, has 60
    breaker_failures: int = Field(default=3, ge=1)
    breaker_seconds: float = Field(default=2.0, gt=0)
