"""`headrace schemas`: is the tracking plan sound?"""

from pathlib import Path
from typing import Annotated

import typer

from cli import examples
from cli.context import ROOT, out
from headrace.protobuf import Messages
from headrace.registry import PlanError, Registry

app = typer.Typer(no_args_is_help=True, help="The tracking plan, its schemas and their examples.")


@app.callback()
def _group() -> None:
    """Keeps `check` a sub-command although it is the only one."""


@app.command()
def check(schemas: Annotated[Path, typer.Option(help="Folder with tracking_plan.yaml and the schemas.")] = ROOT / "schemas") -> None:
    """Say what is wrong with the tracking plan, the schemas and their examples: one line each, and status 1."""
    found, registry = problems(schemas)
    for problem in found:
        out.print(problem, markup=False, highlight=False, soft_wrap=True)
    if found or registry is None:
        raise typer.Exit(1)
    count = len(examples.read(schemas)[0])
    out.print(f"OK: {len(registry.types)} event types, {len(registry.schemas)} schemas, {count} examples", highlight=False)


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
