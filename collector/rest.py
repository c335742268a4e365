"""The collector over HTTP: a thin ASGI application, from a request to `Intake` and back."""

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from collector import cloudevents, metrics, openapi, segment
from collector.accept import SentEvent, TooMany, Unreadable
from collector.admission import Share
from collector.inflate import ENCODINGS, Corrupt, TooLong, Unsupported, inflate
from collector.intake import Intake, Taken
from collector.reading import Texts, read_batch, read_one
from collector.senders import Key, write_key_of
from headrace.dead_letter import Invalid, Reason, Unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Events = tuple[list[SentEvent | Unreadable], Texts]

BATCH = "/v1/batch"
EVENTS = "/v1/events"
ADMIN = ("/metrics", "/openapi.json", "/docs")  # what can be moved to a port of its own
_CALLS = {f"/v1/{call}": call for call in segment.CALLS}
_POSTS = {BATCH, EVENTS, *_CALLS}

_JSON_TYPES = {"", "application/json", "text/json", "text/plain"}  # sendBeacon sends text as text/plain
_ONE_EVENT = "application/cloudevents+json"
_MANY_EVENTS = "application/cloudevents-batch+json"
_RETRY_AFTER = "2"

_log = structlog.get_logger()


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    media_type: str = "application/json"


class Refused(Exception):
    """A request, as opposed to one of its events, that is not taken."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer = Answer(status, msgspec.json.encode({"code": code, "message": message}), headers)


class Gone(Exception):
    """The client closed the connection before its request was complete."""


class Rest:
    """The ASGI application. Sizes are in bytes: of a request as sent, and after decompression."""

    def __init__(self, intake: Intake, *, max_request: int, max_body: int, origins: Iterable[str], without: Iterable[str] = ()) -> None:
        """`without`: paths of `ADMIN` that are not served here."""
        self._intake = intake
        self._max_request = max_request
        self._max_body = max_body
        self._origins = frozenset(origins)
        self._gets: dict[str, Callable[[], Answer]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/openapi.json": lambda: Answer(200, openapi.DOCUMENT),
            "/docs": lambda: Answer(200, openapi.PAGE, media_type="text/html; charset=utf-8"),
        }
        for path in without:
            del self._gets[path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            answer = await self._answer(scope, headers, receive)
        except Refused as refused:
            answer = refused.answer
        except Unavailable as unavailable:
            answer = Refused(503, "unavailable", f"{unavailable}: send it again", ("retry-after", _RETRY_AFTER)).answer
        except Gone:
            return
        except Exception:
            _log.exception("a request could not be served", path=scope["path"])
            answer = Refused(500, "internal", "the collector failed: send it again").answer
        await _respond(answer, self._cors(headers), send)
        if scope["path"] in _POSTS:
            metrics.requests("rest", answer.status).inc()
            metrics.latency("rest").observe(time.perf_counter() - started)

    async def _answer(self, scope: Scope, headers: dict[str, str], receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if path in _POSTS:
            if method == "POST":
                return await self._post(path, scope, headers, receive)
            allowed = "POST, OPTIONS"
        elif path in self._gets:
            if method in ("GET", "HEAD"):
                return self._gets[path]()
            allowed = "GET, HEAD, OPTIONS"
        else:
            raise Refused(404, "not_found", f"there is no {path[:100]}: see /docs")
        if method == "OPTIONS":
            return Answer(204, b"", (("allow", allowed),))
        raise Refused(405, "method_not_allowed", f"{method[:20]} is not allowed here: use {allowed}", ("allow", allowed))

    async def _post(self, path: str, scope: Scope, headers: dict[str, str], receive: Receive) -> Answer:
        presented = self._presented(scope, headers)
        key = self._intake.senders.known(presented)
        if key is None and (presented is not None or path == EVENTS):
            raise _unauthorized()
        media_type = _media_type(path, headers.get("content-type", ""))
        refusal = None
        with self._intake.admission.request() as share:
            body = await self._body(headers, receive, share)
            if key is None:  # a beacon of an SDK: its key is in the body
                key = self._intake.senders.known(segment.write_key(self._inflated(body, headers)))
                if key is None:
                    raise _unauthorized()
            protocol = "cloudevents" if path == EVENTS else "segment"
            client = scope.get("client")
            sending = self._intake.sending(protocol, key, client[0] if client else None, headers.get("user-agent"))
            try:
                body = self._inflated(body, headers)
                outcome = self._intake.judge(*self._read(path, media_type, body, headers, key), sending)
            except TooMany as error:
                raise Refused(413, "too_many_events", str(error)) from None
            except Invalid as problem:
                outcome = self._intake.refused_body(problem, body, sending)
                refusal = Refused(400, problem.reason, problem.detail)
            del body  # the rest may wait for Kafka long, and the body may be large
            taken = await self._intake.take(outcome, sending)
        if refusal:
            raise refusal
        return _told(taken)

    @staticmethod
    def _presented(scope: Scope, headers: dict[str, str]) -> str | None:
        """The write key in the header or the query; "" where the header holds none that can be read."""
        if "authorization" in headers:
            return write_key_of(headers["authorization"]) or ""
        query = scope.get("query_string", b"")
        return parse_qs(query.decode("latin-1")).get("writeKey", [None])[0] if query else None

    async def _body(self, headers: dict[str, str], receive: Receive, share: Share) -> bytes:
        too_long = f"the request has more than {self._max_request} bytes: send fewer events at once"
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._max_request:
            raise Refused(413, "too_large", too_long, ("connection", "close"))
        announced = int(length) if length.isdecimal() else 0
        self._reserve(share, announced)  # at once: of many bodies read half, none would come to its end
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_request:
                raise Refused(413, "too_large", too_long, ("connection", "close"))
            if size > announced:
                self._reserve(share, len(part))
            parts.append(part)
            if not message.get("more_body"):
                return b"".join(parts) if len(parts) > 1 else part

    @staticmethod
    def _reserve(share: Share, count: int) -> None:
        try:
            share.take(count)
        except Unavailable as full:
            close = (("retry-after", _RETRY_AFTER), ("connection", "close"))
            raise Refused(503, "unavailable", f"{full}: send it again", *close) from None

    def _inflated(self, body: bytes, headers: dict[str, str]) -> bytes:
        try:
            return inflate(body, headers.get("content-encoding", ""), self._max_body)
        except Unsupported as error:
            raise Refused(415, "unsupported_encoding", str(error), ("accept-encoding", ", ".join(ENCODINGS))) from None
        except TooLong as error:
            raise Refused(413, "too_large", str(error)) from None
        except Corrupt as error:
            raise Invalid(Reason.UNPARSEABLE, str(error)) from None

    def _read(self, path: str, media_type: str, body: bytes, headers: dict[str, str], key: Key) -> Events:
        limits = self._intake.limits
        if path != EVENTS:
            form = segment.form(key.source, self._intake.registry, _CALLS.get(path))
            return read_batch(body, form, limits) if path == BATCH else read_one(body, form, limits)
        if media_type not in (_ONE_EVENT, _MANY_EVENTS) and cloudevents.is_binary(headers):
            return cloudevents.read_binary(body, headers, limits)
        if media_type == _MANY_EVENTS or (media_type != _ONE_EVENT and body.lstrip()[:1] == b"["):
            return read_batch(body, cloudevents.FORM, limits)
        return read_one(body, cloudevents.FORM, limits)

    def _cors(self, headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
        origin = headers.get("origin")
        if origin not in self._origins:
            return ()
        return (
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),  # sendBeacon always sends in credentials mode
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-allow-headers", "authorization, content-type, content-encoding"),
            ("access-control-expose-headers", "retry-after"),
            ("access-control-max-age", "600"),
            ("vary", "origin"),
        )

    def _health(self) -> Answer:
        return Answer(200, b'{"status":"alive"}')

    def _ready(self) -> Answer:
        problem = self._intake.outbox.problem
        if problem:
            raise Unavailable(problem)
        return Answer(200, b'{"status":"spooling"}' if self._intake.outbox.spooling else b'{"status":"ready"}')

    def _metrics(self) -> Answer:
        return Answer(200, metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _told(taken: Taken) -> Answer:
    rejected = [
        {"index": one.index, "id": one.letter.id, "reason": one.letter.reason, "detail": one.letter.detail} for one in taken.rejected
    ]
    return Answer(200, msgspec.json.encode({"accepted": taken.accepted, "rejected": rejected}))


@lru_cache(maxsize=64)
def _media_type(path: str, content_type: str) -> str:
    """The media type of the body, without parameters. Raises Refused where it is none of JSON."""
    given, *parameters = content_type.lower().split(";")
    name = given.strip()
    for parameter in parameters:
        attribute, _, value = parameter.strip().partition("=")
        if attribute == "charset" and value.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
            raise Refused(415, "unsupported_media_type", f"charset {value[:30]} is not supported: JSON is UTF-8")
    known = name in _JSON_TYPES or (path == EVENTS and (name.endswith("+json")))
    if not known:
        wanted = f"application/json, {_ONE_EVENT} or {_MANY_EVENTS}" if path == EVENTS else "application/json"
        raise Refused(415, "unsupported_media_type", f"content type {name[:100]!r} is not supported: send {wanted}")
    return name


def _unauthorized() -> Refused:
    message = "no known write key: send it as the user name of Basic authentication, or as a Bearer token"
    return Refused(401, "unauthorized", message, ("www-authenticate", 'Basic realm="headrace"'))


async def _respond(answer: Answer, cors: tuple[tuple[str, str], ...], send: Send) -> None:
    headers = [(b"content-type", answer.media_type.encode()), (b"content-length", b"%d" % len(answer.body))]
    if answer.status == 204:
        headers = []
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*answer.headers, *cors)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
