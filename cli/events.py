"""`headrace events`: send one event, watch events pass."""

import json
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
import typer
from rich.text import Text

from cli.context import err, fail, not_reachable, out, settings
from cli.kafka import followed
from headrace import dead_letter, event
from headrace.kafka import DEAD_LETTER_TOPICS

app = typer.Typer(no_args_is_help=True, help="Send an event, or watch events pass.")
_TOPICS = (event.RAW_TOPIC, event.ENRICHED_TOPIC, *DEAD_LETTER_TOPICS)


@app.command()
def send(  # noqa: PLR0917 - options of a command
    type: Annotated[str, typer.Argument(help="Event type of the tracking plan, such as purchase.")],
    data: Annotated[str, typer.Option(help="The event's data as JSON, or @FILE.")] = "{}",
    subject: Annotated[str | None, typer.Option(help="Whom or what the event is about.")] = None,
    id: Annotated[str | None, typer.Option(help="Id; a new one where none is given. The same id and source is the same event.")] = None,
    source: Annotated[str, typer.Option(help="Who says so.")] = "headrace-cli",
    time: Annotated[str | None, typer.Option(help="RFC 3339, such as 2026-01-31T12:00:00Z; now where none is given.")] = None,
) -> None:
    """Send one event to the collector, as CloudEvents JSON, and print its reply. Status 1 where it was not accepted."""
    env = settings()
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": id or str(uuid.uuid4()),
        "source": source,
        "type": type,
        "time": time or event.now(),
    }
    body |= {"datacontenttype": "application/json", "data": _json(data)} | ({"subject": subject} if subject is not None else {})
    collector = env["HEADRACE_COLLECTOR_URL"]
    try:
        reply = httpx.post(
            f"{collector}/v1/events",
            content=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/cloudevents+json"},
            auth=(env["HEADRACE_WRITE_KEY"], ""),
            timeout=30,
        )
    except httpx.TransportError:
        not_reachable("collector", collector)
    except UnicodeEncodeError:
        fail("--data: holds half a surrogate pair, which is no text")
    out.print(reply.text, markup=False, highlight=False, soft_wrap=True)
    err.print(f"id {body['id']}, source {source}", markup=False, highlight=False, soft_wrap=True, style="dim")
    if reply.status_code != 200 or reply.json().get("rejected"):
        raise typer.Exit(1)


@app.command()
def tail(
    type: Annotated[str | None, typer.Option(help="Only events of this type.")] = None,
    topic: Annotated[str, typer.Option(help=f"One of {', '.join(_TOPICS)}.")] = event.ENRICHED_TOPIC,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the oldest message, not with the next.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    raw: Annotated[bool, typer.Option("--json", help="Print each message as it stands in Kafka.")] = False,
) -> None:
    """Follow a topic, until Ctrl-C."""
    if topic not in _TOPICS:
        fail(f"--topic {topic}: use one of {', '.join(_TOPICS)}")
    shown = 0
    for value in followed(settings(), topic, from_start):
        try:
            of, line = _line(topic, value)
        except msgspec.DecodeError as error:
            of, line = None, Text(f"not of Headrace's form: {error}", style="red")
        if type is None or of == type:
            out.print(Text(value.decode(errors="replace")) if raw else line, soft_wrap=True, highlight=False)
            shown += 1
        if shown == count:
            return


def _json(text: str) -> Any:
    try:
        return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except json.JSONDecodeError as error:
        fail(f"--data: not JSON: {error}")
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--data {text}: {getattr(error, 'strerror', None) or error}")


def _line(topic: str, value: bytes) -> tuple[str | None, Text]:
    """The event type of a message, and the line that shows it."""
    if topic in DEAD_LETTER_TOPICS:
        letter = dead_letter.decode(value)
        what = (_clock(letter.rejected_at), "dim"), (f"{letter.type or '?':<14}", "bold"), (f"{letter.reason:<18}", "red")
        return letter.type, Text.assemble(*_spaced(*what, (letter.id or "?", "cyan"), (letter.detail, "")))
    of = (event.decode_enriched if topic == event.ENRICHED_TOPIC else event.decode_raw)(value)
    what = (_clock(of.received_at), "dim"), (f"{of.type:<14}", "bold"), (f"{of.subject or '-':<14}", "green")
    shown = [*what, (of.id, "cyan"), (bytes(of.data).decode(errors="replace"), "")]
    if isinstance(of, event.EnrichedEvent) and bytes(of.enrichment) != b"{}":
        shown.append((bytes(of.enrichment).decode(errors="replace"), "magenta"))
    return of.type, Text.assemble(*_spaced(*shown))


def _spaced(*parts: tuple[str, str]) -> list[tuple[str, str] | str]:
    return [piece for part in parts for piece in (part, " ")][:-1]


def _clock(rfc3339: str) -> str:
    """The time of day, here, of a moment."""
    try:
        return datetime.fromisoformat(rfc3339).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return rfc3339
