"""`headrace docs`: what the tables of gold are, where they come from and what is tested, as dbt's own page."""

import os
import subprocess
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from cli.context import ROOT, err, fail, out, settings
from dags.headrace_environments import dbt_paths

_DBT = ROOT / ".runtime" / "venvs" / "dbt" / "bin" / "dbt"


def docs(build_only: Annotated[bool, typer.Option("--build-only", help="Write the page, print where it is, and end.")] = False) -> None:
    """Build the documentation of the gold tables and serve it on DOCS_PORT until Ctrl-C. One file, which needs no network."""
    env = settings()
    with err.status("Building the documentation (dbt asks Trino for the tables)"):
        page = build(env, os.environ)
    if build_only:
        out.print(str(page), soft_wrap=True, highlight=False)
        return
    try:
        server = serve(page.read_bytes(), env["BIND_HOST"], int(env["DOCS_PORT"]))
    except OSError as error:
        fail(f"{env['BIND_HOST']}:{env['DOCS_PORT']}: {error.strerror}: choose another DOCS_PORT in .env")
    out.print(f"http://{env['BIND_HOST']}:{server.server_address[1]}/ (Ctrl-C ends it)")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def build(env: Mapping[str, str], environment: Mapping[str, str]) -> Path:
    """The page, made anew by dbt for the platform with the settings `env`. Ends the command where that fails."""
    output = ROOT / env["STATE_DIR"] / "data" / "dbt" / "docs"
    if not _DBT.is_file():
        fail(f"no dbt at {_DBT.relative_to(ROOT)}: `make up` installs it (PROFILE=full)")
    own = {**environment, **env, **dbt_paths(ROOT, output, output)}
    command = [str(_DBT), "--quiet", "docs", "generate", "--static"]
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        said = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "no reason given")
        fail(f"dbt: {said} (Trino is at {env['TRINO_URL']}; all that dbt said is in {output / 'dbt.log'})")
    return output / "static_index.html"


def serve(page: bytes, host: str, port: int) -> ThreadingHTTPServer:
    """A server of this one page. Raises OSError where the port is taken."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.split("?")[0] == "/"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(page) if found else 0))
            self.end_headers()
            self.wfile.write(page if found else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Nobody needs to know of each request."""

    return ThreadingHTTPServer((host, port), Page)
