"""Logs (structlog) as one JSON object a line, and the Prometheus end point of services without an HTTP port."""

import logging
import sys

import structlog
from prometheus_client import start_http_server


def set_up_logging(service: str, level: str = "info", form: str = "json") -> None:
    """Logs of this process go to standard error, with `service` in each line. `form` is "json" or "console"."""
    renderer: structlog.types.Processor = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def serve_metrics(host: str, port: int) -> None:
    """Serve `/metrics` on `host:port` from a daemon thread."""
    start_http_server(port, addr=host)
