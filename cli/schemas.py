"""`headrace schemas`: is the tracking plan sound, and what are its types in Python?"""

import subprocess
from pathlib import Path
from typing import Annotated

import orjson
import typer

from cli import examples, typed_events
from cli.context import ROOT, fail, out
from dags.curation.expectations import ExpectationsError, properties_of, read_expectations
from headrace import evolution
from headrace.protobuf import Messages
from headrace.registry import PlanError, Registry

app = typer.Typer(no_args_is_help=True, help="The tracking plan, its schemas and their examples.")


_SCHEMAS = typer.Option(help="Folder with tracking_plan.yaml and the schemas.")


@app.command()
def check(
    schemas: Annotated[Path, _SCHEMAS] = ROOT / "schemas",
    against: Annotated[
        str, typer.Option(help="What is deployed, as a revision of git: in CI the branch that is merged into, such as origin/main.")
    ] = "",
) -> None:
    """Say what is wrong with the tracking plan, the schemas and their examples: one line each, and status 1.

    A schema of what is deployed (by default: what is committed) may have gained properties, but not changed in a way that its events break.
    """
    found, registry = problems(schemas)
    if registry is not None:
        found += changed(schemas, registry, against)
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
    try:
        read_expectations(folder, properties_of(registry.schemas))
    except ExpectationsError as error:
        found += error.problems
    found += [f"{folder}: {refusal}" for refusal in evolution.refusals(registry.schemas)]
    return found, registry


def changed(folder: Path, registry: Registry, against: str) -> list[str]:
    """A sentence for each schema that breaks what the revision `against` has of it. Empty: HEAD, where `folder` is in git at all."""
    listed = _git(folder, "ls-tree", "-r", "--name-only", against or "HEAD", ".")
    if listed is None:
        return [f"{folder}: git has no revision {against} with it: give --against one that it has"] if against else []
    found = []
    for path in listed.decode().splitlines():
        ref, dot, suffix = path.rpartition(".")
        if not dot or suffix != "json" or ref.split("/")[0] not in registry.types:
            continue
        if ref not in registry.schemas:
            found.append(f"{folder / path}: it is gone, but events of {ref} are in the lake: put it back")
            continue
        before = orjson.loads(_git(folder, "show", f"{against or 'HEAD'}:./{path}") or b"{}")
        found += [
            f"{folder / path}: {one.where} {one.what}, and events of {ref} as it was are in the lake: write a new version beside it"
            for one in evolution.breaks(before, registry.schemas[ref])
        ]
    return found


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git says in `folder`, or None where it refuses or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
