"""`headrace keys`: make, list and revoke write keys. The collector takes up a change within seconds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.context import ROOT, err, fail, out, settings
from headrace import event, keyfile, keys
from headrace.keys import KeyProblem, WriteKey
from headrace.registry import PlanError, Registry

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke write keys.")


@app.command()
def make(  # noqa: PLR0917 - options of a command
    source: Annotated[str, typer.Option(help="The source that all its events have.")],
    types: Annotated[str, typer.Option(help="Event types it may send, with commas between; all of the plan where none are given.")] = "",
    events_per_second: Annotated[float | None, typer.Option(help="0: no limit; the collector's default where none is given.")] = None,
    bytes_per_second: Annotated[float | None, typer.Option(help="Of bodies after decompression; as above.")] = None,
    origins: Annotated[str, typer.Option(help="Origins of pages that may use it, with commas between: https://shop.example")] = "",
    note: Annotated[str, typer.Option(help="For people: who has it, what for.")] = "",
) -> None:
    """Make a write key and print it, this once: only its SHA-256 is kept. A source has at most two active keys."""
    env = settings()
    try:
        key, text = keys.make(
            source=source,
            made_at=event.now(),
            types=_planned(_parts(types), ROOT / env["SCHEMAS_DIR"]),
            origins=_parts(origins),
            events_per_second=events_per_second,
            bytes_per_second=bytes_per_second,
            note=note,
        )
    except KeyProblem as problem:
        fail(str(problem))
    path = _change(env["COLLECTOR_KEYS_FILE"], lambda before: keys.with_key(before, key))
    typer.echo(text)
    err.print(f"id {key.id}, source {key.source}: shown this once; its hash is in {path}", markup=False, style="dim")


@app.command(name="list")
def list_() -> None:
    """Show the write keys: never their secrets."""
    path = ROOT / settings()["COLLECTOR_KEYS_FILE"]
    try:
        there = keyfile.read(path)[0]
    except keyfile.Unreadable as problem:
        fail(str(problem))
    headings = ("id", "source", "state", "types", "events/s", "bytes/s", "origins", "made", "note")
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for key in there:
        state = Text("active", "green") if key.active else Text(f"revoked {key.revoked_at}", "dim")
        rates = _rate(key.events_per_second), _rate(key.bytes_per_second)
        cells = (", ".join(key.types) or "all", *rates, ", ".join(key.origins), key.made_at, key.note)
        table.add_row(Text(key.id), Text(key.source), state, *map(Text, cells))
    out.print(table if there else f"no keys in {path}: `headrace keys make --source NAME` makes one")


@app.command()
def revoke(id: Annotated[str, typer.Argument(help="The key's id: its 8 characters after hrk_.")]) -> None:
    """Revoke a key: the collector refuses it within seconds, for good."""
    named = keys.id_in(id) or id  # the whole key does too
    _change(settings()["COLLECTOR_KEYS_FILE"], lambda before: keys.without_key(before, named, event.now()))
    out.print(f"key {named} is revoked", markup=False, highlight=False)


def _change(file: str, how: Callable[[Sequence[WriteKey]], Sequence[WriteKey]]) -> Path:
    path = ROOT / file
    try:
        keyfile.change(path, how)
    except (KeyProblem, keyfile.Unreadable) as problem:
        fail(str(problem))
    except OSError as error:
        fail(f"{path}: {error.strerror} (setting COLLECTOR_KEYS_FILE)")
    return path


def _planned(names: Sequence[str], schemas: Path) -> list[str]:
    """The types of the tracking plan that are called so. Ends the command where one is not in it."""
    if not names:
        return []
    try:
        plan = Registry.load(schemas)
    except PlanError as error:
        fail(f"the tracking plan cannot be used: {'; '.join(error.problems)}")
    for name in names:
        if plan.type_named(name) is None:
            fail(f"--types {name}: not in the tracking plan; known: {', '.join(plan.types)}")
    return [type for name in names if (type := plan.type_named(name))]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _rate(rate: float | None) -> str:
    return "default" if rate is None else f"{rate:,.10g}" if rate else "no limit"
