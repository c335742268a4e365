"""The HTTP side of the enrichment API: bytes in, bytes out. What is computed stands in scoring.py."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from enrichment_api import scores, scoring
from enrichment_api.admission import Admission, Busy
from enrichment_api.customers import States
from enrichment_api.serving import Serving, in_words
from headrace.dead_letter import Unavailable
from headrace.features import MODEL, Basis
from headrace.online import OnlineStore

_seconds = Histogram(
    "enrichment_api_request_seconds",
    "Time of a scoring request",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1),
)
_scored = Counter("enrichment_api_scored_total", "Events scored, by what was known of the customer", ["features"])
_unscored = Counter("enrichment_api_unscored_total", "Events that got no enrichment", ["why"])
_refused = Counter("enrichment_api_refused_total", "Requests refused", ["code"])

SCORE = "/v1/score"

_decoder = msgspec.json.Decoder(scoring.Batch)
_encoder = msgspec.json.Encoder()

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Limits(NamedTuple):
    """What a request may cost. `seconds`: within which its body has to be here."""

    body_bytes: int
    in_flight: int = 256
    in_flight_bytes: int = 256 * 1024 * 1024
    seconds: float = 10.0


class _Api(FastAPI):
    """FastAPI, but for scoring requests, which go to their function directly, without routing, dependencies and middleware."""

    scoring: Callable[[Request], Awaitable[Response]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == SCORE and scope["method"] == "POST":
            response = await self.scoring(Request(scope, receive, send))
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def make_app(
    serving: Callable[[], Serving],
    customers: Callable[[], States],
    limits: Limits,
    lifespan: Lifespan | None = None,
    refused: Callable[[], str | None] = lambda: None,
    *,
    stores: Mapping[str, OnlineStore] = MappingProxyType({}),
) -> FastAPI:
    """The app. `serving` gives what serves now and `customers` the present snapshot; each is asked once a request.

    `refused` says why the release file is not what serves (None: it is). `stores` have the scores that were made in batches, by table.
    """
    app = _Api(title="Headrace enrichment API", version="1", lifespan=lifespan, description="Scores events in batches.")

    admission = Admission(limits.in_flight, limits.in_flight_bytes)

    @app.post(SCORE, openapi_extra=_openapi(), responses=_RESPONSES, summary="Score at most 1,000 events")
    async def score(request: Request) -> Response:
        """One object of enrichments for each event, in order; empty for a type without a model, or where the event cannot be scored."""
        start = time.perf_counter()
        held = _Held(admission)
        try:
            batch = _batch(await _body(request, limits, held))
            answers = scoring.score(batch.events, customers(), serving())
            _count(batch, answers)
            response = _json({"enrichments": answers})
        except _Refused as error:
            _refused.labels(error.code).inc()
            return _json({"code": error.code, "message": str(error)}, error.status)
        except Busy as error:
            _refused.labels("overloaded").inc()
            return _later("overloaded", f"{error}: send it again later, or fewer at a time")
        finally:
            held.give_back()
        _seconds.observe(time.perf_counter() - start)
        return response

    app.scoring = score

    @app.exception_handler(HTTPException)
    async def not_here(_: Request, error: HTTPException) -> Response:
        code = "not_found" if error.status_code == 404 else "http"
        return _json({"code": code, "message": f"{error.detail}: see /docs"}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def not_so(_: Request, error: RequestValidationError) -> Response:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
        return _json({"code": "invalid", "message": f"{said}: see /docs"}, 422)

    @app.get("/healthz", summary="The process is alive")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="It can score now")
    async def readyz() -> Response:
        now = serving()
        said = {"status": "ready", "model": now.card.model, "version": now.card.version, "customers": len(customers())}
        return _json({**said, "strategy": in_words(now.release), "variants": now.standings(), "refused": refused()})

    @app.get("/v1/models", summary="Which versions serve whom, and their cards: what each was made from, and how good it is")
    async def models() -> Response:
        now = serving()
        release = {"model": now.card.model, "strategy": in_words(now.release), "release": now.digest, "variants": now.standings()}
        return _json({"models": now.cards, "serving": [release], "refused": refused()})

    @app.get("/v1/scores/{table}", responses=_SCORE_RESPONSES, summary="A customer's newest score that was made in a batch")
    def score_of(table: str, source: str, customer_id: str) -> Response:
        """The tables are those of ENRICHMENT_API_SCORES."""
        if table not in stores:
            known = ", ".join(stores) or "none"
            return _json({"code": "not_found", "message": f"no scores of {table} are here; there are {known} (ENRICHMENT_API_SCORES)"}, 404)
        try:
            found = scores.read(stores[table], source, customer_id)
        except Unavailable as error:
            return _later("unavailable", f"{error}: ask again later")
        if found is None:
            return _json({"code": "no_score", "message": f"{table} has no score of that customer as of its newest moment"}, 404)
        return _json(found)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return app


class _Held:
    """What one request holds of what may be under way."""

    def __init__(self, admission: Admission) -> None:
        self._admission, self._bytes, self._entered = admission, 0, False

    def begin(self, count: int) -> None:
        self._admission.enter(count)
        self._bytes, self._entered = count, True

    def has(self, count: int) -> None:
        """Of its body, so many bytes are here."""
        if count > self._bytes:
            self._admission.more(count - self._bytes)
            self._bytes = count

    def give_back(self) -> None:
        if self._entered:
            self._admission.leave(self._bytes)


async def _body(request: Request, limits: Limits, held: _Held) -> bytes:
    limit = limits.body_bytes
    too_large = _Refused(413, "too_large", f"a request has at most {limit} bytes (ENRICHMENT_API_MAX_BODY_BYTES): send fewer events")
    said = request.headers.get("content-length", "0")
    length = int(said) if said.isdecimal() else 0
    if length > limit:
        raise too_large
    held.begin(length)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large
                held.has(size)
                parts.append(part)
    except TimeoutError:
        raise _Refused(408, "late", f"the body was not here within {limits.seconds:g} s (ENRICHMENT_API_BODY_SECONDS)") from None
    except ClientDisconnect:
        raise _Refused(400, "cut_off", "the connection ended before the body did") from None
    return b"".join(parts)


def _batch(body: bytes) -> scoring.Batch:
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _Refused(422, "invalid", f"{error}: see /docs for the form of a request (at most {scoring.MAX_EVENTS} events)") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused(422, "unparseable", f"the body is not JSON in UTF-8: {error}") from None


def _count(batch: scoring.Batch, answers: list[dict[str, scoring.Enrichment]]) -> None:
    counts = dict.fromkeys((*(basis.name.lower() for basis in Basis), scoring.UNAVAILABLE, "no_model", "unscorable"), 0)
    for event, answer in zip(batch.events, answers, strict=True):
        if answer:
            counts[answer[MODEL].features] += 1
        else:
            counts["unscorable" if event.type == scoring.EVENT_TYPE else "no_model"] += 1
    for name, count in counts.items():
        if count:
            (_unscored if name in ("no_model", "unscorable") else _scored).labels(name).inc(count)


def _json(value: object, status: int = 200) -> Response:
    return Response(_encoder.encode(value), status, media_type="application/json")


def _later(code: str, message: str) -> Response:
    """It may well succeed in a second."""
    response = _json({"code": code, "message": message}, 503)
    response.headers["retry-after"] = "1"
    return response


# The hot path decodes with msgspec, whose types FastAPI does not read: what /docs shows is made from the same types here.
_schemas, _components = msgspec.json.schema_components(
    [scoring.Batch, dict[str, scoring.Enrichment], scores.Score], ref_template="#/components/schemas/{name}"
)


def _inlined(schema: Any) -> Any:
    """`schema` without references: msgspec's components are not among those that FastAPI lists."""
    if isinstance(schema, Mapping):
        if "$ref" in schema:
            return _inlined(_components[schema["$ref"].rsplit("/", 1)[1]])
        return {key: _inlined(value) for key, value in schema.items()}
    return [_inlined(value) for value in schema] if isinstance(schema, list) else schema


def _openapi() -> dict[str, Any]:
    example = {
        "events": [
            {
                "id": "o-1",
                "source": "shop",
                "type": "purchase",
                "time": "2026-01-01T10:00:00Z",
                "subject": "c-1",
                "data": {"quantity": 2, "amount_usd": 28.98},
            }
        ]
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(_schemas[0]), "example": example}}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"application/json": {"schema": {"type": "object", "properties": properties, "required": list(properties)}}}


_ERROR = _object(code={"type": "string"}, message={"type": "string"})
_ENRICHMENTS = {"type": "array", "items": _inlined(_schemas[1])}
_SCORE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The score, of which version, as of when", "content": {"application/json": {"schema": _inlined(_schemas[2])}}},
    404: {"description": "There is none, or no such table", "content": _ERROR},
    422: {"description": "It is not said of which customer", "content": _ERROR},
    503: {"description": "The online store does not answer: again after the seconds that Retry-After says", "content": _ERROR},
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Enrichments, one object for each event, in order", "content": _object(enrichments=_ENRICHMENTS)},
    408: {"description": "The body did not come in time", "content": _ERROR},
    413: {"description": "The body is too large", "content": _ERROR},
    422: {"description": "The body is not a batch of events", "content": _ERROR},
    503: {"description": "Too much is under way: again after the seconds that Retry-After says", "content": _ERROR},
}
