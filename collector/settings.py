"""The collector's settings. Every one stands in .env.example."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace.settings import Settings


class CollectorSettings(Settings):
    """Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="COLLECTOR_")

    bind_host: str = Field("127.0.0.1", validation_alias="BIND_HOST")
    kafka_bootstrap_servers: str = Field(validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    write_key: str = Field(min_length=8, validation_alias="HEADRACE_WRITE_KEY")
    schemas_dir: Path = Field(Path("schemas"), validation_alias="SCHEMAS_DIR")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", validation_alias="LOG_FORMAT")

    rest_port: int = Field(8000, ge=0, le=65535)
    grpc_port: int = Field(50051, ge=0, le=65535)
    native: Literal["auto", "on", "off"] = "auto"
    id: str = Field("collector", min_length=1, max_length=100)
    pseudonym_key: str = Field(min_length=8)
    source: str = Field("website", min_length=1, max_length=200)
    cors_origins: str = "http://127.0.0.1:8020,http://localhost:8020"
    deadline_seconds: float = Field(10, gt=0, le=300)
    max_event_bytes: int = Field(32 * 1024, ge=1024, le=512 * 1024)
    max_request_bytes: int = Field(500_000, ge=1024)
    max_unanswered_bytes: int = Field(64_000_000, ge=1_000_000)
    max_connections: int = Field(4096, ge=1)
    receive_seconds: float = Field(9, gt=0, le=300)
    idle_seconds: float = Field(9, gt=0, le=3600)
    max_body_bytes: int = Field(4_000_000, ge=1024)
    max_batch_events: int = Field(500, ge=1, le=10_000)
    max_depth: int = Field(32, ge=1, le=500)
    max_in_flight_bytes: int = Field(64_000_000, ge=1_000_000)
