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
_OPTIONAL = "optional"
_ROOT = "headrace"  # the one folder that the archive must have


def import_dashboards(place: Place) -> None:
    """Those of a platform's checkout, into its Superset. Raises RuntimeFailure."""
    stamp = place.data("superset") / ".dashboards"
    bring(place.root / "dashboards", place.env, place.url("SUPERSET_PORT"), place.url("TRINO_PORT"), stamp)


def bring(folder: Path, env: Mapping[str, str], superset: str, trino: str, stamp: Path) -> None:
    """Make Superset's databases, data sets, charts and dashboards those of `folder`. Raises RuntimeFailure where it refuses them.

    `superset` and `trino` are URLs; the file `stamp` remembers what was imported.

    Superset asks Trino about what it imports, so this waits for Trino, which starts at the same time.
    """
    files = assets(folder, env)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    try:
        with httpx.Client(base_url=superset, timeout=_SUPERSET_WITHIN) as client:
            log_in(client, env)
            if stamp.is_file() and stamp.read_text() == digest and all(_there(client, slug) for slug in slugs(files)):
                return
            _await_trino({**env, "TRINO_URL": trino})
            _send(client, archive(files))
    except httpx.HTTPStatusError as error:
        raise RuntimeFailure(f"Superset refused the dashboards: {error.response.status_code} {error.response.text[:600]}") from None
    except httpx.HTTPError as error:
        raise RuntimeFailure(f"Superset does not answer: {error}") from None
    stamp.write_text(digest)


def assets(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Path in the archive -> text, with ${NAME} replaced by settings, and with the options of SUPERSET_OPTIONS (folders of
    `optional/`). Raises RuntimeFailure for a name that is no setting, and for an option that is not there."""
    optional = folder / _OPTIONAL
    files = {name: text for name, text in _texts(folder).items() if not name.startswith(f"{_OPTIONAL}/")}
    for option in filter(None, (each.strip() for each in env.get("SUPERSET_OPTIONS", "").split(","))):
        if option not in (known := sorted(path.name for path in optional.glob("*"))):
            raise RuntimeFailure(f"SUPERSET_OPTIONS: no option {option!r}: there are {', '.join(known) or 'none'}")
        files |= _texts(optional / option)
    unknown = sorted({name for text in files.values() for name in _NAME.findall(text) if name not in env})
    if unknown:
        raise RuntimeFailure(f"dashboards: no such setting: {', '.join(unknown)}")
    return {name: _NAME.sub(lambda match: env[match[1]], text) for name, text in files.items()}


def _texts(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.yaml"))}


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


def _await_trino(env: Mapping[str, str]) -> None:
    deadline = time.monotonic() + _TRINO_WITHIN
    while not answers(env):
        if time.monotonic() > deadline:
            raise RuntimeFailure(f"the dashboards cannot be imported: Trino does not answer at {env['TRINO_URL']}")
        time.sleep(0.5)


def _send(client: httpx.Client, bundle: bytes) -> None:
    client.headers["X-CSRFToken"] = client.get("/api/v1/security/csrf_token/").raise_for_status().json()["result"]
    client.headers["Referer"] = str(client.base_url)
    client.post("/api/v1/assets/import/", files={"bundle": ("headrace.zip", bundle, "application/zip")}).raise_for_status()
