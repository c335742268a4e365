"""When the schema of a server's metadata database has to be brought up to date: seconds that a warm start need not spend."""

from collections.abc import Callable
from pathlib import Path

import psycopg2

from headrace.errors import in_a_line
from runtime.component import Place
from runtime.errors import RuntimeFailure


def database_url(place: Place, database: str, driver: str = "") -> str:
    """The address of one of our databases in PostgreSQL, for SQLAlchemy where a driver (`+psycopg2`) is given."""
    return f"{place.env['POSTGRES_URL'].replace('postgresql://', f'postgresql{driver}://', 1)}/{database}"


def migrate_once(place: Place, database: str, stamp: str, migrate: Callable[[], None]) -> None:
    """Run `migrate` unless it has already run for `stamp` and the database still has its tables. Raises RuntimeFailure."""
    marked = place.data(database) / ".migrated"
    if marked.is_file() and marked.read_text() == stamp and _has_tables(place, database):
        return
    marked.unlink(missing_ok=True)
    migrate()
    Path(marked).write_text(stamp)


def _has_tables(place: Place, database: str) -> bool:
    try:
        connection = psycopg2.connect(database_url(place, database), connect_timeout=5)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT to_regclass('alembic_version') IS NOT NULL")
                return cursor.fetchone() == (True,)
        finally:
            connection.close()
    except psycopg2.OperationalError as error:
        raise RuntimeFailure(f"the database {database} in PostgreSQL cannot be reached: {in_a_line(error)}") from None
