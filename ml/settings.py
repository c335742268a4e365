"""Settings of the models' steps."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from pydantic_settings import SettingsConfigDict

from headrace.kafka import KafkaSettings
from headrace.settings import Settings as Base


class Settings(Base):
    """Prefix `ML_`. Data sources of scenarios read settings of their own."""

    model_config = SettingsConfigDict(env_prefix="ML_")

    cores: Annotated[int, Field(ge=1)] = 2
    spark_memory: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*[mg]$")] = "2g"
    runs_dir: Path
    flights_dir: Path
    shop_file: Path
    ray_address: Annotated[str, StringConstraints(pattern=r"^([^:/\s]+:\d+)?$")] = ""
    repurchase_source: str = Field("", validation_alias="REPURCHASE_SOURCE")
    mlflow_url: str = Field(validation_alias="MLFLOW_URL")


class StreamSettings(KafkaSettings):
    """Of scoring what stands in Kafka by Spark, prefix `SCORING_STREAM_`."""

    model_config = SettingsConfigDict(env_prefix="SCORING_STREAM_")

    answers: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = "enrichment_api.queue.stream:Answers"
    max_messages: Annotated[int, Field(ge=1)] = 10_000
    seconds: Annotated[float, Field(gt=0)] = 1.0
    checkpoint: Path
    cores: Annotated[int, Field(validation_alias="ML_CORES", ge=1)] = 2
    partitions: Annotated[int, Field(validation_alias="KAFKA_PARTITIONS", ge=1)] = 3
