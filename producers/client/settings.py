"""What every producer that runs beside the platform reads of its settings."""

from pathlib import Path

from pydantic import Field, SecretStr

import headrace.settings


class ProducerSettings(headrace.settings.Settings):
    """Where the collector is, and the key to send with."""

    collector_url: str = Field(validation_alias="HEADRACE_COLLECTOR_URL", pattern=r"^https?://[^\s/]+$")
    write_key: SecretStr = Field(validation_alias="HEADRACE_WRITE_KEY")
    state_dir: Path = Field(Path(".runtime/state"), validation_alias="STATE_DIR")
    log_level: str = Field("info", validation_alias="LOG_LEVEL")
    log_format: str = Field("json", validation_alias="LOG_FORMAT")
