"""Settings of the models' steps."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from headrace.settings import Settings as Base


class Settings(Base):
    """Prefix `ML_`. Data sources of scenarios read settings of their own."""

    model_config = SettingsConfigDict(env_prefix="ML_")

    cores: Annotated[int, Field(ge=1)] = 2
    spark_memory: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[mg]$")] = "2g"
    runs_dir: Path
    flights_dir: Path
    shop_file: Path
    repurchase_source: str = Field("", validation_alias="REPURCHASE_SOURCE")
    mlflow_url: str = Field(validation_alias="MLFLOW_URL")
