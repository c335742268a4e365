"""`headrace sql`: ask Trino, with a statement, files of statements, or at a prompt."""

import csv
import re
import readline
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import requests
import typer
from rich.table import Table
from trino.dbapi import Connection
from trino.exceptions import Error, HttpError, TrinoConnectionError, TrinoQueryError

from cli.context import ROOT, err, fail, not_reachable, out, settings
from headrace.trino import connection

# A quote or comment that is not closed goes on to the end.
_PARTS = re.compile(r"'(?:[^']|'')*(?:'|$)|\"(?:[^\"]|\"\")*(?:\"|$)|--[^\n]*|/\*.*?(?:\*/|$)|;|[^'\";/-]+|.", re.DOTALL)
_HISTORY = 1000  # lines that the prompt remembers


class Refused(Exception):
    """Trino did not carry a statement out; the message says why."""


def sql(
    statement: Annotated[
        str, typer.Argument(help="A SQL statement; tables are named catalog.schema.table, such as lake.gold.fact_purchase. None: a prompt.")
    ] = "",
    file: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="Run the statements in a file, which end with semicolons. May be repeated.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Run statements in Trino and print their rows. Stops at the first that fails."""
    wanted = statements(statement)
    for path in file or ():
        try:
            wanted += statements(path.read_text())
        except (OSError, UnicodeDecodeError) as problem:
            fail(f"cannot read {path}: {problem}")
    if not (statement or file) and not sys.stdin.isatty():
        wanted += statements(sys.stdin.read())
    env = settings()
    with connection(env, "headrace", max_attempts=1) as opened:
        if not (statement or file) and sys.stdin.isatty():
            _prompt(opened, env)
            return
        if not wanted:
            fail("there is no statement")
        for one in wanted:
            try:
                _run(opened, one, as_csv)
            except Refused as problem:
                fail(f"{problem}{f' (in: {one[:80]})' if len(wanted) > 1 else ''}")


def statements(text: str) -> list[str]:
    """The statements in `text`, of which the last needs no semicolon."""
    ended, rest = split(text)
    return [*ended, rest] if rest else ended


def split(text: str) -> tuple[list[str], str]:
    """The statements in `text` that a semicolon ends, without it, and what comes after the last. Comments alone are no statement."""
    found: list[str] = []
    parts: list[str] = []
    for part in _PARTS.findall(text):
        if part != ";":
            parts.append(part)
        else:
            found.append(_joined(parts))
            parts = []
    return [one for one in found if one], _joined(parts)


def _joined(parts: list[str]) -> str:
    return "".join(parts).strip() if any(part.strip() and not part.startswith(("--", "/*")) for part in parts) else ""


def _prompt(connection: Connection, env: Mapping[str, str]) -> None:
    """Statements as they are typed, until the end of input. One that fails ends nothing."""
    past = ROOT / env["STATE_DIR"] / "sql-history"
    if past.is_file():
        readline.read_history_file(past)
    readline.set_history_length(_HISTORY)
    out.print("Statements end with a semicolon; Ctrl-D or exit ends the prompt.", style="dim")
    typed = ""
    try:
        while True:
            try:
                line = input("headrace> " if not typed else "       -> ")
                if not typed and line.strip().rstrip(";").lower() in ("exit", "quit"):
                    break
                ended, typed = split(f"{typed}\n{line}")
                for one in ended:
                    _answer(connection, one)
            except KeyboardInterrupt:  # what was typed so far, or what runs, is given up
                out.print()
                typed = ""
            except EOFError:
                out.print()
                break
    finally:
        with suppress(OSError):  # in a container there is no place for it
            past.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(past)


def _answer(connection: Connection, statement: str) -> None:
    try:
        _run(connection, statement, as_csv=False)
    except Refused as problem:
        err.print(str(problem), markup=False, style="red")


def _run(connection: Connection, statement: str, as_csv: bool) -> None:
    """Run one statement and print its rows. Raises Refused; ends the command where Trino is not there."""
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        rows = cursor.fetchall()
        names = [column[0] for column in cursor.description or []]
    except (TrinoConnectionError, requests.RequestException):
        not_reachable("Trino", f"{connection.http_scheme}://{connection.host}:{connection.port}")
    except KeyboardInterrupt:
        with suppress(Error, HttpError, requests.RequestException):
            cursor.cancel()
        raise
    except TrinoQueryError as error:
        raise Refused(f"Trino: {' '.join(error.message.split())}") from None
    except (Error, HttpError) as error:
        raise Refused(f"Trino at {connection.host}:{connection.port}: {error}") from None
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([names, *rows])
    else:
        _show(names, rows)


def _show(names: list[str], rows: list[Any]) -> None:
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(table.columns):
        column.justify = "right" if any(isinstance(row[index], int | float) for row in rows) else "left"
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    out.print(table)
    out.print(f"{len(rows):,} row{'' if len(rows) == 1 else 's'}", style="dim", highlight=False)
