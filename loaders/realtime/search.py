"""Elasticsearch, as the real-time loader uses it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from elasticsearch import ApiError, BadRequestError, Elasticsearch, TransportError

from headrace.dead_letter import Unavailable
from loaders.realtime.mapping import STARTERS, Document
from loaders.realtime.stage import Outcome

_HEADERS = {"content-type": "application/x-ndjson", "accept": "application/json"}
_CREATED = Outcome(201)


class Search:
    """Raises Unavailable whenever Elasticsearch does not answer, or answers that it cannot now."""

    def __init__(self, client: Elasticsearch) -> None:
        self._client = client

    def prepare(self, templates: Mapping[str, Mapping[str, Any]]) -> None:
        """Put the index templates, and the empty indices that keep the aliases. Repeating it changes nothing."""
        try:
            for name, template in templates.items():
                self._client.indices.put_index_template(name=name, **template)
            for index in STARTERS:
                if not self._client.indices.exists(index=index):
                    self._create(index)
        except (TransportError, ApiError) as error:
            raise Unavailable(f"Elasticsearch: {error}") from error

    def _create(self, index: str) -> None:
        try:
            self._client.indices.create(index=index)
        except BadRequestError as error:
            if error.error != "resource_already_exists_exception":  # another copy was quicker
                raise

    def create(self, documents: Sequence[Document]) -> Sequence[Outcome]:
        """One bulk request of `create` operations."""
        lines = []
        for document in documents:
            lines.append(b'{"create":{"_index":%b,"_id":"%b"}}' % (_quoted(document.index), document.id.encode()))
            lines.append(document.source)
        lines.append(b"")
        try:
            answer = self._client.options(request_timeout=30, max_retries=0).perform_request(
                "POST", "/_bulk?filter_path=errors,items.*.status,items.*.error", headers=_HEADERS, body=b"\n".join(lines)
            )
        except (TransportError, ApiError) as error:
            raise Unavailable(f"Elasticsearch: {error}") from error
        return _outcomes(answer.body, len(documents))


def _outcomes(body: Any, expected: int) -> list[Outcome]:
    if not body["errors"]:
        return [_CREATED] * expected
    items = [item["create"] for item in body["items"]]
    if len(items) != expected:
        raise Unavailable(f"Elasticsearch: {len(items)} outcomes for {expected} documents")
    return [Outcome(item["status"], _sentence(item.get("error")), _kind(item.get("error"))) for item in items]


def _kind(error: Any) -> str:
    return str(error.get("type", "")) if isinstance(error, dict) else ""


def _sentence(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error or "")
    cause = error.get("caused_by") or {}
    said = [str(part) for part in (error.get("type"), error.get("reason"), cause.get("reason")) if part]
    return ": ".join(said)[:500]


def _quoted(text: str) -> bytes:
    return msgspec.json.encode(text)
