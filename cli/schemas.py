"""`headrace schemas`: is the tracking plan sound, and what are its types in Python?"""

from pathlib import Path
from typing import Annotated

import typer

from cli import examples, typed_events
from cli.context import ROOT, fail, out
from headrace.protobuf import Messages
from headrace.registry import PlanError, Registry

app = typer.Typer(no_args_is_help=True, help="The tracking plan, its schemas and their examples.")


_SCHEMAS = typer.Option(help="Folder with tracking_plan.yaml and the schemas.")


@app.command()
def check(schemas: Annotated[Path, _SCHEMAS] = ROOT / "schemas") -> None:
    """Say what is wrong with the tracking plan, the schemas and their examples: one line each, and status 1."""
    found, registry = problems(schemas)
    for problem in found:
        out.print(problem, markup=False, highlight=False, soft_wrap=True)
    if found or registry is None:
        raise typer.Exit(1)
    count = len(examples.read(schemas)[0])
    out.print(f"OK: {len(registry.types)} event types, {len(registry.schemas)} schemas, {count} examples", highlight=False)


@app.command()
def python(
    to: Annotated[Path, typer.Option("--out", help="The module to write, such as events.py.")],
    schemas: Annotated[Path, _SCHEMAS] = ROOT / "schemas",
) -> None:
    """Write a Python module with a class for each event type, for `producers.client` and a type checker."""
    try:
        registry = Registry.load(schemas)
    except PlanError as error:
        fail(f"the tracking plan cannot be used: {error.problems[0]} (`headrace schemas check` says all)")
    try:
        to.write_text(typed_events.module(registry), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {to}: {error.strerror}")
    out.print(f"{to}: {len(registry.schemas)} classes", markup=False, highlight=False)


def problems(folder: Path) -> tuple[list[str], Registry | None]:
    """A sentence for each thing to mend in `folder`, and the registry where the plan can be loaded."""
    try:
        registry = Registry.load(folder)
    except PlanError as error:
        return error.problems, None
    found = list(examples.problems(folder, registry))
    try:
        Messages.load(folder, registry.schemas)
    except PlanError as error:
        found += error.problems
    return found, registry
