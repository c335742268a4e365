"""The Iceberg catalog `lake`: the same for PyIceberg, Spark and Trino (a PostgreSQL database and an S3 warehouse)."""

from typing import TYPE_CHECKING

from pydantic import Field, SecretStr

from headrace.dead_letter import Unavailable
from headrace.errors import in_a_line
from headrace.settings import Settings

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog

CATALOG = "lake"  # the three engines find one another's tables only under one catalog name

# How long PostgreSQL and we wait for one another. A commit whose connection is lost half-way would otherwise hold the table's row, and with
# it every other writer, until the server's TCP gives up: hours. What the URL says itself comes first.
_PATIENCE = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "options": "-c idle_in_transaction_session_timeout=10000 -c lock_timeout=10000 -c statement_timeout=30000",
}


class LakeSettings(Settings):
    """Where the lake is: the same for all who ask for it."""

    catalog_url: str = Field(validation_alias="LAKE_CATALOG_URL")
    warehouse: str = Field(validation_alias="LAKE_WAREHOUSE")
    s3_endpoint: str = Field(validation_alias="S3_ENDPOINT")
    s3_region: str = Field(validation_alias="S3_REGION")
    s3_access_key: str = Field(validation_alias="S3_ACCESS_KEY")
    s3_secret_key: SecretStr = Field(validation_alias="S3_SECRET_KEY")


def load_catalog(settings: LakeSettings) -> "SqlCatalog":
    """The catalog; its own tables are made where they are not there yet. Raises Unavailable where PostgreSQL cannot be reached.

    S3 is not touched until a table's data is.
    """
    from pyiceberg.catalog.sql import SqlCatalog  # heavy, and not needed by processes that only import the settings
    from sqlalchemy import make_url
    from sqlalchemy.exc import DBAPIError

    given = make_url(settings.catalog_url.replace("postgresql://", "postgresql+psycopg2://", 1))
    url = given.set(query={**_PATIENCE, **given.query}).render_as_string(hide_password=False)
    try:
        return SqlCatalog(
            CATALOG,
            **{
                "uri": url,
                "pool_pre_ping": "true",  # a connection that PostgreSQL closed meanwhile is replaced, not an error
                "warehouse": settings.warehouse,
                "s3.endpoint": settings.s3_endpoint,
                "s3.region": settings.s3_region,
                "s3.access-key-id": settings.s3_access_key,
                "s3.secret-access-key": settings.s3_secret_key.get_secret_value(),
                "s3.connect-timeout": "5",
                "s3.request-timeout": "30",
            },
        )
    except DBAPIError as error:
        raise Unavailable(f"the lake's catalog in PostgreSQL: {in_a_line(error)}") from error
