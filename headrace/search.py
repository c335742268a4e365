"""A client of Elasticsearch, as the settings say."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator

from headrace.settings import Settings

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


class SearchSettings(Settings):
    """How Elasticsearch is reached: the same for all who do."""

    elasticsearch_url: str = Field(validation_alias="ELASTICSEARCH_URL")
    elasticsearch_username: str = Field("", validation_alias="ELASTICSEARCH_USERNAME")
    elasticsearch_password: SecretStr = Field(SecretStr(""), validation_alias="ELASTICSEARCH_PASSWORD", validate_default=True)
    elasticsearch_ca_file: str = Field("", validation_alias="ELASTICSEARCH_CA_FILE")

    @field_validator("elasticsearch_password")
    @classmethod
    def _goes_with_a_name_over_tls(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        secret, url = value.get_secret_value(), info.data.get("elasticsearch_url", "https://")
        if bool(secret) != bool(info.data.get("elasticsearch_username")):
            raise ValueError("goes with ELASTICSEARCH_USERNAME: give both or none")
        if secret and not url.startswith("https://"):
            raise ValueError(f"is sent over https:// alone, and ELASTICSEARCH_URL is {url}")
        return value

    @field_validator("elasticsearch_ca_file")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError(f"there is no file {value}")
        return value


def client(settings: SearchSettings, **more: Any) -> "Elasticsearch":
    """A client with these settings. `more`: as in elasticsearch.Elasticsearch."""
    from elasticsearch import Elasticsearch  # heavy, and not needed by processes that only import the settings

    if settings.elasticsearch_username:
        more["basic_auth"] = (settings.elasticsearch_username, settings.elasticsearch_password.get_secret_value())
    if settings.elasticsearch_ca_file:
        more["ca_certs"] = settings.elasticsearch_ca_file
    return Elasticsearch(settings.elasticsearch_url, **more)


def client_of(env: Mapping[str, str], **more: Any) -> "Elasticsearch":
    """The same, for commands: by a platform's settings. Ends the process with one line where they do not go together."""
    try:
        settings = SearchSettings.of(env)
    except ValidationError as error:
        raise SystemExit(f"headrace: {SearchSettings.problems(error)[0]} (see .env.example)") from None
    return client(settings, **more)
