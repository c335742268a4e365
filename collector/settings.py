"""The collector's settings. Every one stands in .env.example."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from headrace.kafka import KafkaSettings
from headrace.keys import KeyProblem, check_origin


class CollectorSettings(KafkaSettings):
    """Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="COLLECTOR_")

    bind_host: str = Field("127.0.0.1", validation_alias="BIND_HOST")
    profile: Literal["development", "production"] = Field("development", validation_alias="HEADRACE_PROFILE")
    write_key: str = Field("", validation_alias="HEADRACE_WRITE_KEY", validate_default=True)
    schemas_dir: Path = Field(Path("schemas"), validation_alias="SCHEMAS_DIR")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias="LOG_LEVEL")
    log_format: Literal["json", "console"] = Field("json", validation_alias="LOG_FORMAT")

    rest_port: int = Field(8000, ge=0, le=65535)
    grpc_port: int = Field(50051, ge=0, le=65535)
    native: Literal["auto", "on", "off"] = "auto"
    id: str = Field("collector", min_length=1, max_length=100)
    pseudonym_key: str = Field(min_length=16)
    source: str = Field("website", min_length=1, max_length=200)
    cors_origins: str = "http://127.0.0.1:8020,http://localhost:8020"
    keys_file: Path = Path(".runtime/state/keys.json")
    key_events_per_second: float = Field(0, ge=0, allow_inf_nan=False)
    key_bytes_per_second: float = Field(0, ge=0, allow_inf_nan=False)
    tls_cert_file: str = ""
    tls_key_file: str = Field("", validate_default=True)
    deadline_seconds: float = Field(10, gt=0, le=300)
    max_event_bytes: int = Field(32 * 1024, ge=1024, le=512 * 1024)
    max_request_bytes: int = Field(500_000, ge=1024)
    max_connections: int = Field(4096, ge=1)
    receive_seconds: float = Field(9, gt=0, le=300)
    idle_seconds: float = Field(9, gt=0, le=3600)
    max_body_bytes: int = Field(4_000_000, ge=1024)
    max_batch_events: int = Field(500, ge=1, le=10_000)
    max_depth: int = Field(32, ge=1, le=500)
    max_in_flight_bytes: int = Field(64_000_000, ge=1_000_000)
    compression: Literal["none", "lz4", "zstd", "snappy", "gzip"] = "lz4"
    linger_ms: float = Field(2, ge=0, le=1000)
    max_held_bytes: int = Field(32_000_000, ge=1_000_000)
    max_grpc_calls: int = Field(256, ge=1)
    max_grpc_connections: int = Field(256, ge=1)
    spool_dir: str = ""
    spool_max_bytes: int = Field(1_000_000_000, ge=10_000_000)
    workers: int = Field(1, ge=1, le=64)
    admin_port: Annotated[int, BeforeValidator(lambda given: given or 0)] = Field(0, ge=0, le=65535)

    @field_validator("write_key")
    @classmethod
    def _fits_the_profile(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("profile") == "production" and value:
            raise ValueError("production starts with no ready-made key: leave it empty, and make keys with `headrace keys make`")
        if info.data.get("profile") == "development" and len(value) < 8:
            raise ValueError("development needs a ready-made key of at least 8 characters")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: str) -> str:
        try:
            return ",".join(check_origin(origin.strip()) for origin in value.split(",") if origin.strip())
        except KeyProblem as problem:
            raise ValueError(str(problem)) from None

    @field_validator("tls_key_file")
    @classmethod
    def _goes_with_the_certificate(cls, value: str, info: ValidationInfo) -> str:
        if bool(value) != bool(info.data.get("tls_cert_file")):
            raise ValueError("TLS needs both COLLECTOR_TLS_CERT_FILE and COLLECTOR_TLS_KEY_FILE: set both or none")
        return value

    @property
    def origins(self) -> list[str]:
        """Origins of pages that may use the ready-made key."""
        return [origin for origin in self.cors_origins.split(",") if origin]

    @property
    def tls(self) -> tuple[Path, Path] | None:
        """Certificate and key, or None without TLS."""
        return (Path(self.tls_cert_file), Path(self.tls_key_file)) if self.tls_cert_file else None
