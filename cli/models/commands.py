"""`headrace models`: what there is, how good it is, and which version serves. A person promotes, and says why."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.context import fail, out, settings
from ml.errors import Mendable
from ml.promotion import Change, changes, story
from ml.promotion import promote as promote_version
from ml.promotion import rollback as undo
from ml.registry import Registry

app = typer.Typer(no_args_is_help=True, help="Models: what there is, which version serves, and who made it so.")
Name = Annotated[str, typer.Argument(help="The model, as `headrace models list` names it.")]
Why = Annotated[str, typer.Option("--why", help="The reason, for those who come after.")]


@app.callback()
def _group() -> None:
    """Models: what there is, which version serves, and who made it so."""


@app.command("list")
def show_all() -> None:
    """Every model: its champion, its youngest version, and what the gate said of that."""
    with _registry() as registry:
        table = Table("model", "champion", "youngest", "made", "gate", box=None, pad_edge=False, header_style="bold")
        for model in registry.models():
            youngest = next(iter(registry.versions(model.name)), None)
            told = (
                (str(youngest.number), _moment(youngest.created_ms), youngest.tags.get("gate", "not judged"))
                if youngest
                else ("-", "-", "-")
            )
            table.add_row(model.name, str(model.champion or "-"), *told)
        out.print(table if table.row_count else "There are no models yet: the DAG `train` makes them.")


@app.command()
def show(name: Name) -> None:
    """One model: its versions with what the gate said, and who changed the champion when and why."""
    with _registry() as registry:
        model = registry.model(name)
        table = Table("version", "made", "gate", "data", "code", "why not", box=None, pad_edge=False, header_style="bold")
        for version in registry.versions(name):
            mark = " (champion)" if version.number == model.champion else ""
            known = (version.tags.get("gate", "not judged"), version.tags.get("data_snapshot", "-")[:19], version.tags.get("code", "-"))
            table.add_row(f"{version.number}{mark}", _moment(version.created_ms), *known, "\n".join(version.reasons))
        out.print(table)
        for change in changes(model):
            out.print(_told(change), markup=False)
        if remark := story(model):
            out.print(remark, style="yellow", markup=False)


@app.command()
def promote(name: Name, version: Annotated[int, typer.Argument(help="Its number.")], why: Why) -> None:
    """Make a version the champion. Only what the gate let pass can become it."""
    with _registry() as registry:
        out.print(_told(promote_version(registry, name, version, _who(), why)), markup=False)


@app.command()
def rollback(name: Name, why: Why) -> None:
    """Undo the last promotion: the version before it serves again."""
    with _registry() as registry:
        out.print(_told(undo(registry, name, _who(), why)), markup=False)


@contextmanager
def _registry() -> Iterator[Registry]:
    """Ends the command with one line where the registry is not there, or refuses."""
    try:
        with Registry(settings()["MLFLOW_URL"]) as registry:
            yield registry
    except Mendable as problem:
        fail(str(problem))


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def _told(change: Change) -> str:
    return f"{change.at} {change.who}: {change.action} {change.from_ or 'none'} -> {change.to or 'none'} ({change.why})"


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M}"
