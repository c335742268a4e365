"""`headrace models`: what there is, how good it is, and which version serves. A person promotes, and says why."""

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from cli.context import fail, out, settings
from cli.models.release_file import Strategy
from ml.errors import Mendable
from ml.promotion import Change, changes, story
from ml.promotion import promote as promote_version
from ml.promotion import rollback as undo
from ml.registry import Registry, RegistryError, Version

if TYPE_CHECKING:
    from cli.models.releasing import Releases
    from enrichment_api.release import Release

app = typer.Typer(no_args_is_help=True, help="Models: what there is, which version serves, and who made it so.")
Name = Annotated[str, typer.Argument(help="The model, as `headrace models list` names it.")]
Served = Annotated[
    bool, typer.Option("--serve/--no-serve", help="Of the model that the enrichment API serves: release it too, to everybody at once.")
]
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
def promote(name: Name, version: Annotated[int, typer.Argument(help="Its number.")], why: Why, served: Served = True) -> None:
    """Make a version the champion. Only what the gate let pass can become it. The enrichment API serves it within seconds."""
    with _registry() as registry:
        releases = _releases(name, served)
        folder = releases.stage(registry, registry.version(name, version)) if releases else ""  # before anything changes
        out.print(_told(promote_version(registry, name, version, _who(), why)), markup=False)
        if releases:
            _say(releases, releases.release(folder))


@app.command()
def rollback(name: Name, why: Why, served: Served = True) -> None:
    """Undo the last promotion: the version before it is the champion again, and the enrichment API serves it within seconds."""
    with _registry() as registry:
        change = undo(registry, name, _who(), why)
        out.print(_told(change), markup=False)
        if releases := _releases(name, served):
            if change.to is None:
                releases.forget()
                out.print(f"The model of {releases.model_dir} serves everybody.", markup=False)
            else:
                _say(releases, releases.release(releases.stage(registry, registry.version(name, change.to))))


@app.command()
def release(  # noqa: PLR0917 - options of a command
    name: Name,
    version: Annotated[int | None, typer.Argument(help="Its number; the champion where none is given.")] = None,
    strategy: Annotated[Strategy, typer.Option(help="How it comes to serve (docs/serving.md).")] = "recreate",
    share: Annotated[float | None, typer.Option(help="Of the subjects: canary, ab, shadow.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Until a rolling release has reached everybody.")] = None,
    starts_at: Annotated[str | None, typer.Option(help="When a rolling release begins, with an offset from UTC; now.")] = None,
    variant: Annotated[str | None, typer.Option(help="What ab calls it: challenger. Others that are tried stay.")] = None,
    live: Annotated[bool | None, typer.Option("--live", help="Of blue_green: it serves at once, and is not only kept warm.")] = None,
    called: Annotated[str | None, typer.Option("--name", help="Of the release: another name tries it on other people.")] = None,
) -> None:
    """Bring what the enrichment API serves in step with the registry: the champion for everybody, or a version by another strategy."""
    with _registry() as registry:
        from cli.models.releasing import Releases

        releases = Releases.of(settings())
        folder = releases.stage(registry, _chosen(registry, name, version))
        values = {"share": share, "seconds": seconds, "starts_at": starts_at, "variant": variant, "live": live, "name": called}
        _say(releases, releases.release(folder, strategy, **values))


def _chosen(registry: Registry, name: str, number: int | None) -> Version:
    if number is not None:
        return registry.version(name, number)
    champion = registry.champion(name)
    if champion is None:
        raise RegistryError(f"{name} has no champion: `headrace models promote {name} VERSION` makes one, or name a version")
    return champion


def _releases(name: str, served: bool) -> "Releases | None":
    """Where the enrichment API looks; None for a model that it does not serve."""
    from cli.models.releasing import Releases  # the runtime of models takes half a second to import
    from headrace.features import MODEL

    return Releases.of(settings()) if served and name == MODEL else None


def _say(releases: "Releases", release: "Release") -> None:
    variants = ", ".join(f"{variant} {folder}" for variant, folder in release.folders().items())
    out.print(f"{releases.file}: {variants}", markup=False)


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
