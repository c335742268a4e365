"""What every producer that runs beside the platform reads of its settings."""

from pathlib import Path

from pydantic import Field, SecretStr

import headrace.settings


class ProducerSettings(headrace.settings.Settings):
    """Where the collector is, and the key to send with."""

    bind_host: str = Field("127.0.0.1", validation_alias="BIND_HOST")
    rest_port: int = Field(8000, validation_alias="COLLECTOR_REST_PORT")
    write_key: SecretStr = Field(validation_alias="HEADRACE_WRITE_KEY")
    state_dir: Path = Field(Path(".runtime/state"), validation_alias="STATE_DIR")
    log_level: str = Field("info", validation_alias="LOG_LEVEL")
    log_format: str = Field("json", validation_alias="LOG_FORMAT")

    @property
    def collector_url(self) -> str:
        """The address of the collector of this platform."""
        return f"http://{self.bind_host}:{self.rest_port}"
