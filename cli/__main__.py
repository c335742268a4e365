"""`headrace`: the platform from the command line. Every command says in one line what went wrong and what to do."""

import typer

from cli import schemas

app = typer.Typer(name="headrace", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(schemas.app, name="schemas")

if __name__ == "__main__":
    app(prog_name="headrace")
