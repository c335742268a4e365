"""`headrace sql`: ask Trino."""

import csv
import sys
from typing import Annotated
from urllib.parse import urlsplit

import requests
import typer
from rich.table import Table
from trino.dbapi import connect
from trino.exceptions import Error, HttpError, TrinoConnectionError, TrinoQueryError

from cli.context import fail, not_reachable, out, settings


def sql(
    statement: Annotated[
        str, typer.Argument(help="One SQL statement; tables are named catalog.schema.table, such as lake.gold.fact_purchase.")
    ],
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Run one statement in Trino and print the rows."""
    if not statement.strip(" ;\n\t"):
        fail("the statement is empty")
    env = settings()
    address = urlsplit(env["TRINO_URL"])
    connection = connect(  # type: ignore[no-untyped-call]
        host=address.hostname, port=address.port, user=env["TRINO_USER"], http_scheme=address.scheme, source="headrace", max_attempts=1
    )
    try:
        cursor = connection.cursor()
        cursor.execute(statement.rstrip().rstrip(";"))
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description or []]
    except (TrinoConnectionError, requests.RequestException):
        not_reachable("Trino", env["TRINO_URL"])
    except TrinoQueryError as error:
        fail(f"Trino: {' '.join(error.message.split())}")
    except (Error, HttpError) as error:
        fail(f"Trino at {env['TRINO_URL']}: {error}")
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
        return
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(table.columns):
        column.justify = "right" if any(isinstance(row[index], int | float) for row in rows) else "left"
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    out.print(table)
    out.print(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)
