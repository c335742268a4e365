"""Settings of the shop page."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.settings import Settings


class ShopSettings(Settings):
    """Where the page is served, and what its tracker needs: both of these go to every visitor."""

    model_config = SettingsConfigDict(env_prefix="SHOP_")

    host: str = Field(validation_alias="BIND_HOST")
    port: int
    collector_url: str = Field(pattern=r"^https?://[^\s/]+$")
    write_key: str = Field(validation_alias="HEADRACE_WRITE_KEY", min_length=1)
    log_level: str = Field(default="info", validation_alias="LOG_LEVEL")
