"""Settings of the enrichment API and of its training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, StringConstraints, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

import headrace.settings
from headrace.lake import LakeSettings
from headrace.online import OnlineSettings

_PREFIX = SettingsConfigDict(env_prefix="ENRICHMENT_API_")


class TrainSettings(headrace.settings.Settings):
    """What training reads and writes, and with the API's own settings beside it (one prefix, one list of known names)."""

    model_config = _PREFIX

    model_dir: Path
    data_file: Path
    port: int = Field(8010, ge=1, le=65535)
    url: str = "http://127.0.0.1:8010"
    refresh_seconds: float = Field(15, gt=0)
    max_body_bytes: int = Field(64 * 1024 * 1024, gt=0)
    features: Literal["memory", "redis"] = "memory"
    scores: Annotated[str, StringConstraints(pattern=r"^(scores_\w+(,scores_\w+)*)?$")] = ""
    max_in_flight: int = Field(256, ge=1)
    max_in_flight_bytes: int = Field(128 * 1024 * 1024, gt=0)
    body_seconds: float = Field(10, gt=0)
    cache_rows: int = Field(0, ge=0)
    release_file: Path | None = None  # beside the folder of the model
    release_seconds: float = Field(1, gt=0)
    shadow_file: Path | None = None
    shadow_max_bytes: int = Field(64 * 1024 * 1024, gt=0)

    @field_validator("max_in_flight_bytes")
    @classmethod
    def _holds_a_request(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("max_body_bytes", 0):
            raise ValueError("is less than ENRICHMENT_API_MAX_BODY_BYTES: a request of that size could never be taken")
        return value

    @property
    def score_tables(self) -> list[str]:
        """Of `lake.gold`: those whose newest scores are looked up."""
        return self.scores.split(",") if self.scores else []

    @property
    def releases(self) -> Path:
        """Where the release file is, or would be."""
        return self.release_file or self.model_dir.parent / "release.yaml"

    @field_validator("release_file", "shadow_file", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return value or None


class Settings(LakeSettings, OnlineSettings, TrainSettings):
    """What the service needs."""

    model_config = _PREFIX

    @field_validator("redis_url")
    @classmethod
    def _is_there(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        if not value.get_secret_value():
            if info.data.get("features") == "redis":
                raise ValueError("ENRICHMENT_API_FEATURES=redis needs it")
            if info.data.get("scores"):
                raise ValueError("ENRICHMENT_API_SCORES needs it")
        return value

    bind_host: str = Field("127.0.0.1", validation_alias="BIND_HOST")
    log_level: str = Field("info", validation_alias="LOG_LEVEL")
    log_format: str = Field("json", validation_alias="LOG_FORMAT")
