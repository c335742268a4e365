"""MLflow's registry as this platform uses it: models, their versions with verdicts, and the alias `champion`. Over its REST API, so that
the command line needs none of MLflow's packages.

A version's tags say what is to be known of it: `gate` (passed, failed), `reason.<n>`, `learnt_until`, `data_snapshot`, `code`,
`onnx_sha256`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

import httpx

from ml.errors import Mendable

CHAMPION = "champion"
ONNX_FILE, CARD_FILE, REFERENCES_FILE = "model.onnx", "extra_files/card.json", "extra_files/references.json"
_API = "/api/2.0/mlflow"
_FILES = "/api/2.0/mlflow-artifacts/artifacts/"


class RegistryError(Mendable):
    """The registry cannot be reached, refuses, or has not what is asked for."""


@dataclass(frozen=True)
class Version:
    """A version of a model."""

    model: str
    number: int
    created_ms: int
    run_id: str
    tags: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether the gate let it pass."""
        return self.tags.get("gate") == "passed"

    @property
    def called(self) -> str:
        """What events call it where the enrichment API serves it: its number, and the head of its SHA-256."""
        return f"{self.number}-{self.tags.get('onnx_sha256', '')[:8]}"

    @property
    def reasons(self) -> list[str]:
        """Why it was kept out."""
        return [self.tags[name] for name in sorted(self.tags) if name.startswith("reason.")]


@dataclass(frozen=True)
class Model:
    """A registered model: which version each alias names, and its tags (the record of promotions among them)."""

    name: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str]

    @property
    def champion(self) -> int | None:
        """The number of the version that serves."""
        return self.aliases.get(CHAMPION)


class Registry:
    """MLflow at `url`. Every method raises RegistryError."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[Model]:
        """All of them, by name."""
        pages = self._pages("GET", "registered-models/search", "registered_models", {"max_results": 200})
        return sorted((_model(each) for each in pages), key=lambda model: model.name)

    def model(self, name: str) -> Model:
        """One of them."""
        found = self._asked("GET", "registered-models/get", {"name": name}, missing=True)
        if found is None:
            there = ", ".join(model.name for model in self.models())
            raise RegistryError(f"there is no model {name}; there are {there or 'none yet: the DAG `train` makes them'}")
        return _model(found["registered_model"])

    def versions(self, name: str) -> list[Version]:
        """Of a model, the youngest first."""
        quoted = name.replace("'", "\\'")
        pages = self._pages("GET", "model-versions/search", "model_versions", {"filter": f"name='{quoted}'", "max_results": 200})
        return sorted((_version(each) for each in pages), key=lambda version: -version.number)

    def version(self, name: str, number: int) -> Version:
        """One of a model."""
        found = self._asked("GET", "model-versions/get", {"name": name, "version": str(number)}, missing=True)
        if found is None:
            there = ", ".join(str(version.number) for version in self.versions(name))
            raise RegistryError(f"{name} has no version {number}; there are {there or 'none'}")
        return _version(found["model_version"])

    def champion(self, name: str) -> Version | None:
        """The version that serves; None where there is no such model, or nobody has promoted one."""
        found = self._asked("GET", "registered-models/alias", {"name": name, "alias": CHAMPION}, missing=True)
        return _version(found["model_version"]) if found else None

    def point(self, name: str, number: int) -> None:
        """Let `champion` name this version from now on: one change, seen whole."""
        self._asked("POST", "registered-models/alias", {"name": name, "alias": CHAMPION, "version": str(number)})

    def unpoint(self, name: str) -> None:
        """Let there be no champion."""
        self._asked("DELETE", "registered-models/alias", {"name": name, "alias": CHAMPION})

    def tag(self, name: str, key: str, value: str, number: int | None = None) -> None:
        """Put a tag on a model, or on one of its versions."""
        if number is None:
            self._asked("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})
        else:
            self._asked("POST", "model-versions/set-tag", {"name": name, "version": str(number), "key": key, "value": value})

    def file(self, version: Version, path: str) -> bytes:
        """A file of a version, as it was registered."""
        found = self._asked("GET", "model-versions/get-download-uri", {"name": version.model, "version": str(version.number)})
        uri = str(found["artifact_uri"]) if found else ""
        if not uri.startswith("mlflow-artifacts:/"):
            raise RegistryError(
                f"{version.model} {version.number}: its files are at {uri}, and not with the server: start it as `make up` does"
            )
        inside = uri.removeprefix("mlflow-artifacts:").lstrip("/")
        return self._sent("GET", _FILES + quote(f"{inside}/{path}")).content

    def onnx(self, version: Version) -> bytes:
        """The exported model of a version. Raises RegistryError too where it is not what was registered."""
        onnx = self.file(version, ONNX_FILE)
        if hashlib.sha256(onnx).hexdigest() != version.tags.get("onnx_sha256"):
            raise RegistryError(f"{version.model} {version.number}: {ONNX_FILE} is not the file that was registered")
        return onnx

    def _pages(self, method: str, path: str, what: str, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        token = ""
        while True:
            page = self._asked(method, path, {**given, **({"page_token": token} if token else {})}) or {}
            yield from page.get(what, [])
            if not (token := page.get("next_page_token", "")):
                return

    def _asked(self, method: str, path: str, given: Mapping[str, Any], missing: bool = False) -> Any:
        """The answer; None where `missing` is allowed and there is no such thing."""
        sent = {"params": given} if method == "GET" else {"json": given}
        answer = self._sent(method, f"{_API}/{path}", missing=missing, **sent)
        return None if answer.is_error else answer.json()

    def _sent(self, method: str, path: str, missing: bool = False, **given: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **given)
        except httpx.TransportError:
            raise RegistryError(f"MLflow not reachable at {self._url}: `make up PROFILE=models` starts it (setting MLFLOW_URL)") from None
        if not answer.is_error or (missing and _is_missing(answer)):
            return answer
        raise RegistryError(f"MLflow at {self._url} answers {answer.status_code} to {path}: {' '.join(answer.text.split())[:300]}")


def _is_missing(answer: httpx.Response) -> bool:
    """Whether MLflow says that there is no such model, version or alias."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return body.get("error_code") == "RESOURCE_DOES_NOT_EXIST" or "alias" in str(body.get("message", "")).lower()


def _tags(of: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag["key"]): str(tag["value"]) for tag in of.get("tags", [])}


def _model(of: Mapping[str, Any]) -> Model:
    return Model(of["name"], {each["alias"]: int(each["version"]) for each in of.get("aliases", [])}, _tags(of))


def _version(of: Mapping[str, Any]) -> Version:
    return Version(of["name"], int(of["version"]), int(of.get("creation_timestamp", 0)), of.get("run_id", ""), _tags(of))
