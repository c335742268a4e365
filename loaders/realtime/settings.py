"""Settings of the real-time loader (prefix REALTIME_LOADER_)."""

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from headrace import service
from headrace.search import SearchSettings


class RealtimeLoaderSettings(SearchSettings, service.ConsumerSettings):
    """An event is searchable once its batch is full or old enough, plus Elasticsearch's refresh (1 s)."""

    model_config = SettingsConfigDict(env_prefix="REALTIME_LOADER_")

    group: str = "headrace.realtime-loader"
    privacy_key: SecretStr = Field(validation_alias="PRIVACY_KEY", min_length=1)
    max_batch_messages: int = Field(default=2000, ge=1)
    max_batch_bytes: int = Field(default=16_000_000, ge=1)
    max_batch_seconds: float = Field(default=0.5, gt=0)
