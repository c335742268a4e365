"""A connection to Trino, as the settings say."""

from collections.abc import Mapping
from typing import Any

import requests
from trino.auth import BasicAuthentication
from trino.dbapi import Connection, connect


def connection(env: Mapping[str, str], source: str, **more: Any) -> Connection:
    """By TRINO_URL (its scheme, host and port) as TRINO_USER: with TRINO_PASSWORD, where there is one, and the certificates of
    TRINO_CA_FILE, where they are not those of the system. `source`: what Trino's list of queries calls us; `more`: as in trino.dbapi.

    Ends the process with one line where a password would be sent in the open.
    """
    url, user, password = env["TRINO_URL"].rstrip("/"), env["TRINO_USER"], env.get("TRINO_PASSWORD", "")
    if password and not url.startswith("https://"):
        raise SystemExit(f"headrace: TRINO_PASSWORD is sent over https:// alone, and TRINO_URL is {url}")
    auth = BasicAuthentication(user, password) if password else None
    if ca_file := env.get("TRINO_CA_FILE"):
        session = requests.Session()
        session.trust_env = False  # REQUESTS_CA_BUNDLE, which many a company's machine has, would go before
        session.verify = ca_file
        more["http_session"] = session
    return connect(host=url, user=user, auth=auth, source=source, **more)  # type: ignore[no-untyped-call, no-any-return]
