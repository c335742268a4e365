"""What is looked at where docker/compose.production.yml is used: who does not say who it is gets nothing, and the demo balances.

From within, by the commands' own container: the servers have no port outside.
"""

import os
import re
from pathlib import Path

from runtime import envfile
from tests.compose.commands import in_container

OVERRIDE = "docker-compose.yml:docker/compose.production.yml"
SETTINGS = {"ENRICHMENT_API_FEATURES": "redis"}
# Run in the container of the commands: each line of output is what was asked, what came back, and what should have.
_STRANGERS = """
import os, httpx, ssl
trust = ssl.create_default_context(cafile=os.environ["ELASTICSEARCH_CA_FILE"])
full = os.environ["PROFILE"] == "full"
search, trino, plain = "https://elasticsearch:9200/_search", "https://trino:443/v1/statement", "http://trino:8080/v1/statement"
mine = ("operator", os.environ["OPERATOR_PASSWORD"])
wrong = ("operator", "wrong")
asked = [("GET", search, None, 401), ("GET", search, wrong, 401), ("GET", search, mine, 200)]
asked += [("PUT", "https://elasticsearch:9200/_security/user/me", mine, 403)]
if full:
    asked += [("POST", trino, None, 401), ("POST", trino, wrong, 401), ("POST", trino, mine, 200), ("POST", plain, mine, 403)]
bad = 0
for method, url, auth, wanted in asked:
    content = {"PUT": {"json": {"password": "a password", "roles": []}}, "POST": {"content": "SELECT 1"}}.get(method, {})
    got = httpx.request(method, url, auth=auth, headers={"X-Trino-User": "operator"}, verify=trust, timeout=60, **content).status_code
    bad += got != wanted
    who = {None: "nobody", wrong: "operator with a wrong password", mine: "operator"}[auth]
    print(f"{method} {url} as {who}: {got}", "" if got == wanted else f"and NOT {wanted}")
for url in ("https://elasticsearch:9200/", *([trino] if full else [])):
    try:
        httpx.get(url, timeout=60)
        print(url, "was believed without its authority"); bad += 1
    except httpx.ConnectError as error:
        print(url, "without its authority: not believed")
raise SystemExit(bad)
"""


def settings(text: str, example: str) -> str:
    """The .env of production: no password, no key."""
    empty = dict.fromkeys(re.findall(r"^(\w+)=generate$", example, re.MULTILINE), "")
    return envfile.with_settings(text, {**empty, "HEADRACE_PROFILE": "production"})


def strangers() -> list[str]:
    """The command line that asks Elasticsearch and Trino as somebody else."""
    asked = in_container("-c", _STRANGERS)
    place = asked.index("cli")
    entry = ["--entrypoint", "sh /etc/headrace-with-secrets.sh python"]
    return [*asked[:place], *entry, *asked[place:]]


def make_secrets(folder: Path, example: Path) -> None:
    """Fresh ones, for this run."""
    os.environ["SECRETS_DIR"] = str(folder)
    envfile.write_secrets(folder, example)
