"""What the replay reads of the platform's settings."""

from pydantic import Field

from producers.client.settings import ProducerSettings


class ReplaySettings(ProducerSettings):
    """How many of the purchases are sent where the command does not say how many."""

    events: int = Field(validation_alias="CDNOW_REPLAY_EVENTS", ge=0)
