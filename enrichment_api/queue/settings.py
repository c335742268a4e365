"""Settings of the worker behind the queue (prefix SCORING_WORKER_); what it serves with, it has from those of the enrichment API."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from headrace import service


class WorkerSettings(service.ConsumerSettings):
    """What the worker behind the queue needs besides. A batch is one transaction."""

    model_config = SettingsConfigDict(env_prefix="SCORING_WORKER_")

    group: str = "headrace.scoring-worker"
    metrics_port: int = 9104
    partitions: int = Field(validation_alias="KAFKA_PARTITIONS", default=3, ge=1)
    max_batch_messages: int = Field(default=4_000, ge=1)
    max_batch_bytes: int = Field(default=8_000_000, ge=1)
    max_batch_seconds: float = Field(default=0.05, gt=0)
