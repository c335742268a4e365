"""`headrace`: the platform from the command line. Every command says in one line what went wrong and what to do."""

import sys

import typer
from confluent_kafka import KafkaException

from cli import events, keys, schemas
from cli.demo import demo
from cli.dlq import commands as dlq
from cli.docs import docs
from cli.doctor import doctor
from cli.models import commands as models
from cli.privacy import commands as privacy
from cli.sql import sql
from cli.topics import topics

app = typer.Typer(name="headrace", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(schemas.app, name="schemas")
app.add_typer(events.app, name="events")
app.add_typer(keys.app, name="keys")
app.add_typer(dlq.app, name="dlq")
app.add_typer(privacy.app, name="privacy")
app.add_typer(models.app, name="models")
app.command()(topics)
app.command()(doctor)
app.command()(demo)
app.command()(sql)
app.command()(docs)


def main() -> None:
    """The process: what a command lets through ends it with one line too."""
    try:
        app(prog_name="headrace")
    except KafkaException as error:
        sys.exit(f"headrace: Kafka: {error}")
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
