"""The shop page as a web application: the page with its settings written into it, its files, and /healthz."""

import json
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"
_PLACE = "{{ settings }}"


def shop(collector_url: str, write_key: str) -> Starlette:
    """The shop, whose tracker sends to the collector at `collector_url` (as a visitor's browser sees it)."""
    page = (STATIC / "index.html").read_text().replace(_PLACE, safe_json({"collector": collector_url, "writeKey": write_key}))
    headers = {
        "Content-Security-Policy": f"default-src 'self'; connect-src 'self' {collector_url}; frame-ancestors 'none'; base-uri 'none'",
        "Referrer-Policy": "strict-origin-when-cross-origin",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }

    def index(_: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    return Starlette(routes=[Route("/", index), Route("/healthz", healthz), Mount("/static", StaticFiles(directory=STATIC))])


def safe_json(value: object) -> str:
    """`value` as JSON that no browser takes for the end of the script element it stands in."""
    text = json.dumps(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
