"""Logs (structlog) as one JSON object a line, and the Prometheus end point of services without an HTTP port."""

import logging
import sys

import structlog
from prometheus_client import start_http_server

_PLAIN = (int, float, type(None))  # and bool


def set_up_logging(service: str, level: str = "info", form: str = "json") -> None:
    """Logs of this process go to standard error, with `service` in each line. `form` is "json" or "console"."""
    rendering: list[structlog.types.Processor] = [structlog.processors.JSONRenderer()]
    if form != "json":
        rendering = [_without_control_characters, structlog.dev.ConsoleRenderer()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def _without_control_characters(_: object, __: str, entry: structlog.types.EventDict) -> structlog.types.EventDict:
    """Escape what could forge a line or move the cursor, as JSON does; a traceback keeps its lines, all of them indented."""
    for name, value in entry.items():
        if name == "exception":
            entry[name] = "".join(f"    {_escaped(line)}\n" for line in str(value).split("\n"))
        else:
            entry[name] = _escaped(value) if isinstance(value, str) else value if isinstance(value, _PLAIN) else _escaped(repr(value))
    return entry


def _escaped(text: str) -> str:
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def serve_metrics(host: str, port: int) -> None:
    """Serve `/metrics` on `host:port` from a daemon thread."""
    start_http_server(port, addr=host)
