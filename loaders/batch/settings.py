"""Settings of the batch loader (prefix BATCH_LOADER_)."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace import lake, service


class BatchLoaderSettings(service.ConsumerSettings, lake.LakeSettings):
    """A commit comes at `max_rows`, `max_bytes` (of Kafka values) or `max_age_seconds`, whichever is first."""

    model_config = SettingsConfigDict(env_prefix="BATCH_LOADER_")

    group: str = "headrace.batch-loader"
    max_rows: int = Field(default=100_000, ge=1)
    max_bytes: int = Field(default=128_000_000, ge=1)
    max_age_seconds: float = Field(default=10.0, gt=0)
