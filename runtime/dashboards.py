"""The dashboards of `dashboards/`, put into Superset: only when they have changed there or are missing here."""

import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import httpx
import yaml

from runtime.component import Place
from runtime.errors import RuntimeFailure
from runtime.servers.trino import answers

_NAME = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")
_TRINO_WITHIN = 180  # seconds
_SUPERSET_WITHIN = 280  # seconds for one answer: an import asks Trino about every data set, and both have only just started
_ROOT = "headrace"  # the one folder that the archive must have


def import_dashboards(place: Place) -> None:
    """Make Superset's databases, data sets, charts and dashboards those of `dashboards/`. Raises RuntimeFailure where it refuses them.

    Superset asks Trino about what it imports, so this waits for Trino, which starts at the same time.
    """
    files = assets(place.root / "dashboards", place.env)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    stamp = place.data("superset") / ".dashboards"
    try:
        with httpx.Client(base_url=place.url("SUPERSET_PORT"), timeout=_SUPERSET_WITHIN) as client:
            log_in(client, place.env)
            if stamp.is_file() and stamp.read_text() == digest and all(_there(client, slug) for slug in slugs(files)):
                return
            _await_trino(place)
            _send(client, archive(files))
    except httpx.HTTPStatusError as error:
        raise RuntimeFailure(f"Superset refused the dashboards: {error.response.status_code} {error.response.text[:600]}") from None
    except httpx.HTTPError as error:
        raise RuntimeFailure(f"Superset does not answer: {error}") from None
    stamp.write_text(digest)


def assets(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Path in the archive -> text, with ${NAME} replaced by settings. Raises RuntimeFailure for a name that is no setting."""
    files = {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.yaml"))}
    unknown = sorted({name for text in files.values() for name in _NAME.findall(text) if name not in env})
    if unknown:
        raise RuntimeFailure(f"dashboards: no such setting: {', '.join(unknown)}")
    return {name: _NAME.sub(lambda match: env[match[1]], text) for name, text in files.items()}


def slugs(files: Mapping[str, str]) -> list[str]:
    """The names by which the dashboards' addresses end."""
    return [yaml.safe_load(text)["slug"] for name, text in files.items() if name.startswith("dashboards/")]


def archive(files: Mapping[str, str]) -> bytes:
    """The zip file that Superset imports."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        for name, text in files.items():
            bundle.writestr(f"{_ROOT}/{name}", text)
    return buffer.getvalue()


def log_in(client: httpx.Client, env: Mapping[str, str]) -> None:
    """Make `client` the administrator's. Raises httpx.HTTPError."""
    login = {"username": env["SUPERSET_ADMIN_USER"], "password": env["SUPERSET_ADMIN_PASSWORD"], "provider": "db", "refresh": False}
    token = client.post("/api/v1/security/login", json=login).raise_for_status().json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"


def _there(client: httpx.Client, slug: str) -> bool:
    return client.get(f"/api/v1/dashboard/{slug}").status_code == httpx.codes.OK


def _await_trino(place: Place) -> None:
    deadline = time.monotonic() + _TRINO_WITHIN
    while not answers(place):
        if time.monotonic() > deadline:
            raise RuntimeFailure(f"the dashboards cannot be imported: Trino does not answer at {place.url('TRINO_PORT')}")
        time.sleep(0.5)


def _send(client: httpx.Client, bundle: bytes) -> None:
    client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").raise_for_status().json()["result"]
    client.headers["Referer"] = str(client.base_url)
    client.post("/api/v1/assets/import/", files={"bundle": ("headrace.zip", bundle, "application/zip")}).raise_for_status()
