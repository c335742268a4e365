"""The collector over HTTP: from a request to `Intake` and back."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import NamedTuple
from urllib.parse import parse_qs

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from collector import cloudevents, metrics, openapi, otlp, segment
from collector.accept import Outcome, Sending, TooMany, accept
from collector.fast import judge_batch, judge_one
from collector.http import Answer, Answered, Request, error
from collector.inflate import ENCODINGS, Corrupt, TooLong, Unsupported, inflate
from collector.intake import Intake, Taken
from collector.otlp import answer as otlp_answer
from collector.otlp import events as otlp_events
from collector.quota import OverQuota
from collector.reading import Form
from collector.senders import Key, write_key_of
from headrace.dead_letter import Invalid, Reason, Unavailable

BATCH = "/v1/batch"
EVENTS = "/v1/events"
ADMIN = ("/metrics", "/openapi.json", "/docs")  # what can be moved to a port of its own
_CALLS = {f"/v1/{call}": call for call in segment.CALLS}
_POSTS = {BATCH, EVENTS, otlp.PATH, *_CALLS}
_PROTOCOLS = {EVENTS: "cloudevents", otlp.PATH: "otlp"}  # every other path is Segment's

_JSON_TYPES = {"", "application/json", "text/json", "text/plain"}  # sendBeacon sends text as text/plain
_ONE_EVENT = "application/cloudevents+json"
_MANY_EVENTS = "application/cloudevents-batch+json"
_RETRY_AFTER = "2"
_AT_ONCE = 256 * 1024  # bytes after decompression that are judged on the event loop: the worst that was found takes 60 ms of it

_log = structlog.get_logger()


class Refused(Exception):
    """A request, as opposed to one of its events, that is not taken."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer = error(status, code, message, *headers)


class _Way(NamedTuple):
    """What follows from a head alone, as long as the write keys do not change; no `key` where the events of it are not for `at_once`."""

    keys_of: int  # Senders.changes
    key: Key | None = None
    protocol: str = ""
    agent: str | None = None
    form: Form = cloudevents.FORM
    many: bool | None = None  # None: the body's first byte tells


class Rest:
    """The routes. `max_body` is the bound on a request after decompression, in bytes."""

    def __init__(self, intake: Intake, *, max_body: int, without: Iterable[str] = ()) -> None:
        """`without`: paths of `ADMIN` that are not served here."""
        self._intake = intake
        self._max_body = max_body
        self._aside = ThreadPoolExecutor(1, "judge")  # one at a time: a body that is inflated costs memory that nobody counts
        self._gets: dict[str, Callable[[], Answer]] = {
            "/healthz": self._health,
            "/readyz": self._ready,
            "/metrics": self._metrics,
            "/openapi.json": lambda: Answer(200, openapi.DOCUMENT),
            "/docs": lambda: Answer(200, openapi.PAGE, media_type="text/html; charset=utf-8"),
        }
        for path in without:
            del self._gets[path]

    async def answer(self, request: Request) -> Answer:
        """Serve one request. Never raises."""
        started = time.perf_counter()
        try:
            answer = await self._route(request)
        except Exception as problem:
            answer = _refusal(problem, request.path)
        return self._finished(request.path, request.headers, answer, started)

    def at_once(self, request: Request, answered: Answered) -> bool:
        """Serve a request whose head came before, where all its events are surely good. False leaves it, untouched, to `answer`.

        It is what `answer` does, without its detours: what follows from the head alone is looked up once, and no task waits for Kafka.
        """
        head, intake = request.head, self._intake
        if head is None or intake.fast is None or len(request.body) > _AT_ONCE:
            return False
        if head.note is None or head.note.keys_of != intake.senders.changes:
            head.note = self._way(request)
        started = time.perf_counter()
        way: _Way = head.note
        if way.key is None:
            return False
        sending = intake.sending(way.protocol, way.key, request.client, way.agent)
        many = request.body[:1] == b"[" if way.many is None else way.many
        outcome = (intake.fast.batch if many else intake.fast.one)(request.body, way.form, sending)
        if outcome is None or not intake.begins(outcome):
            return False
        path, headers = head.path, head.headers

        def told(problem: Exception | None) -> None:
            answer = _accepted(count) if problem is None else _refusal(problem, path)
            answered(self._finished(path, headers, answer, started))

        count = len(outcome.messages)
        try:
            intake.charge(way.key, count, len(request.body))
        except OverQuota as over:
            told(over)
        else:
            intake.begin(outcome.messages, way.protocol, told)
        return True

    def _way(self, request: Request) -> "_Way":
        path, headers, senders = request.path, request.headers, self._intake.senders
        key = senders.known(self._presented(request))
        ordinary = path in _POSTS and path != otlp.PATH and "content-encoding" not in headers and not cloudevents.is_binary(headers)
        if key is None or not ordinary or not key.lets(headers.get("origin")):
            return _Way(senders.changes)
        try:
            media_type = _media_type(path, headers.get("content-type", ""))
        except Refused:
            return _Way(senders.changes)
        if path == EVENTS:
            form, many = cloudevents.FORM, {_ONE_EVENT: False, _MANY_EVENTS: True}.get(media_type)
        else:
            form, many = segment.form(key.source, self._intake.registry, _CALLS.get(path)), path == BATCH
        return _Way(senders.changes, key, _PROTOCOLS.get(path, "segment"), headers.get("user-agent"), form, many)

    def _finished(self, path: str, headers: dict[str, str], answer: Answer, started: float) -> Answer:
        if path in _POSTS:
            metrics.answered("rest", answer.status, time.perf_counter() - started)
        return self.dressed(path, headers, answer)

    def dressed(self, path: str, headers: dict[str, str], answer: Answer) -> Answer:
        """`answer` in the form of the path, and so that a page may read it."""
        if path == otlp.PATH and answer.body:
            body, media_type = otlp_answer.in_form(answer.status, answer.body, headers.get("content-type", ""))
            answer = answer._replace(body=body, media_type=media_type)
        if "origin" in headers and answer.status != 403:
            answer = answer._replace(headers=(*answer.headers, *self._cors(headers)))
        return answer

    async def _route(self, request: Request) -> Answer:
        path, method = request.path, request.method
        if path in _POSTS:
            if method == "POST":
                return await self._post(request)
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

    async def _post(self, request: Request) -> Answer:
        path, headers = request.path, request.headers
        presented = self._presented(request)
        key = self._intake.senders.known(presented)
        if key is None and (presented is not None or path in _PROTOCOLS):
            raise _unauthorized()
        media_type = _media_type(path, headers.get("content-type", ""))
        if key is None:  # a beacon of an SDK: its key is in the body
            try:
                key = self._intake.senders.known(segment.write_key(self._inflated(request, self._max_body)))
            except TooLong as problem:
                raise Refused(413, "too_large", str(problem)) from None
            except Invalid:
                key = None
            if key is None:
                raise _unauthorized()
        if not key.lets(headers.get("origin")):
            raise Refused(403, "origin_not_allowed", "this write key may not be used on pages of this origin: see `headrace keys`")
        way = cloudevents.way(path, headers) if _is_binary(path, media_type, headers) else path
        sending = self._intake.sending(_PROTOCOLS.get(path, "segment"), key, request.client, headers.get("user-agent"), way)
        try:
            try:
                outcome, body = self._judged(request, media_type, key, sending, min(_AT_ONCE, self._max_body))
            except TooLong:
                work = partial(self._judged, request, media_type, key, sending, self._max_body)
                outcome, body = await asyncio.get_running_loop().run_in_executor(self._aside, work)
        except TooMany as problem:
            raise Refused(413, "too_many_events", str(problem)) from None
        except TooLong as problem:
            raise Refused(413, "too_large", str(problem)) from None
        if isinstance(outcome, Invalid):
            self._intake.charge(key, 1, len(body))
            await self._intake.refuse_body(outcome, body, sending)
            raise Refused(400, outcome.reason, outcome.detail)
        self._intake.charge(key, len(outcome.messages) + len(outcome.rejected), len(body))
        writing = self._intake.take(outcome, sending)
        del body, outcome  # it may wait for Kafka long, and they may be large
        return _told(await writing)

    @staticmethod
    def _presented(request: Request) -> str | None:
        """The write key in the header or the query; "" where the header holds none that can be read."""
        if "authorization" in request.headers:
            return write_key_of(request.headers["authorization"]) or ""
        return parse_qs(request.query.decode("latin-1")).get("writeKey", [None])[0] if request.query else None

    @staticmethod
    def _inflated(request: Request, most: int) -> bytes:
        """The body without its content encoding. Raises TooLong where it has more than `most` bytes, and Invalid."""
        try:
            return inflate(request.body, request.headers.get("content-encoding", ""), most)
        except Unsupported as error:
            raise Refused(415, "unsupported_encoding", str(error), ("accept-encoding", ", ".join(ENCODINGS))) from None
        except Corrupt as error:
            raise Invalid(Reason.UNPARSEABLE, str(error)) from None

    def _judged(self, request: Request, media_type: str, key: Key, sending: Sending, most: int) -> tuple[Outcome | Invalid, bytes]:
        """What becomes of `request`, and its bytes as far as they could be decompressed. Raises TooMany, and TooLong beyond `most`."""
        body = request.body
        try:
            body = self._inflated(request, most)
            inflated = request if body is request.body else request._replace(body=body)
            return self._outcome(inflated, media_type, key, sending, at_once=most < self._max_body), body
        except Invalid as problem:
            return problem, body

    def _outcome(self, request: Request, media_type: str, key: Key, sending: Sending, *, at_once: bool) -> Outcome:
        """What becomes of the events of `request`, whose body is inflated. Raises Invalid where it cannot be read, and TooMany.

        Raises TooLong where that is too much to be done `at_once`.
        """
        fast, path, body = self._intake.fast, request.path, request.body
        if path == otlp.PATH:
            most = _AT_ONCE if at_once else sys.maxsize
            return accept(*otlp_events.read(body, media_type, self._intake.registry, sending.limits, most), sending)
        if path != EVENTS:
            form = segment.form(key.source, self._intake.registry, _CALLS.get(path))
            return (judge_batch if path == BATCH else judge_one)(body, form, sending, fast)
        if _is_binary(path, media_type, request.headers):
            return accept(*cloudevents.read_binary(body, request.headers, sending.limits), sending)
        if media_type == _MANY_EVENTS or (media_type != _ONE_EVENT and body.lstrip()[:1] == b"["):
            return judge_batch(body, cloudevents.FORM, sending, fast)
        return judge_one(body, cloudevents.FORM, sending, fast)

    def _cors(self, headers: dict[str, str]) -> tuple[tuple[str, str], ...]:
        origin = headers.get("origin")
        if origin not in self._intake.senders.origins:
            return ()
        return (
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),  # sendBeacon always sends in credentials mode
            ("access-control-allow-methods", "POST, OPTIONS"),
            ("access-control-allow-headers", "authorization, content-type, content-encoding, anonymousid"),
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


def _refusal(problem: Exception, path: str) -> Answer:
    match problem:
        case Refused():
            return problem.answer
        case Unavailable():
            return error(503, "unavailable", f"{problem}: send it again", ("retry-after", _RETRY_AFTER))
        case OverQuota():
            return error(429, "too_many_requests", str(problem), ("retry-after", str(problem.retry_after)))
    _log.error("a request could not be served", path=path, exc_info=problem)
    return error(500, "internal", "the collector failed: send it again")


def _accepted(count: int) -> Answer:
    return Answer(200, b'{"accepted":%d,"rejected":[]}' % count)


def _is_binary(path: str, media_type: str, headers: dict[str, str]) -> bool:
    return path == EVENTS and media_type not in (_ONE_EVENT, _MANY_EVENTS) and cloudevents.is_binary(headers)


def _told(taken: Taken) -> Answer:
    if not taken.rejected:
        return _accepted(taken.accepted)
    rejected = [
        {"index": one.index, "id": one.letter.id, "reason": one.letter.reason, "detail": one.letter.detail} for one in taken.rejected
    ]
    return Answer(200, msgspec.json.encode({"accepted": taken.accepted, "rejected": rejected}))


@lru_cache(maxsize=64)
def _media_type(path: str, content_type: str) -> str:
    """The media type of the body, without parameters. Raises Refused where it is none of JSON."""
    given, *parameters = content_type.lower().split(";")
    name = given.strip()
    if path == otlp.PATH and name not in (otlp.PROTOBUF, otlp.JSON):
        raise Refused(415, "unsupported_media_type", f"content type {name[:100]!r} is not supported: send {otlp.PROTOBUF} or {otlp.JSON}")
    for parameter in parameters:
        attribute, _, value = parameter.strip().partition("=")
        if attribute == "charset" and value.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
            raise Refused(415, "unsupported_media_type", f"charset {value[:30]} is not supported: JSON is UTF-8")
    known = path == otlp.PATH or name in _JSON_TYPES or (path == EVENTS and (name.endswith("+json")))
    if not known:
        wanted = f"application/json, {_ONE_EVENT} or {_MANY_EVENTS}" if path == EVENTS else "application/json"
        raise Refused(415, "unsupported_media_type", f"content type {name[:100]!r} is not supported: send {wanted}")
    return name


def _unauthorized() -> Refused:
    message = "no known write key: send it as the user name of Basic authentication, or as a Bearer token"
    return Refused(401, "unauthorized", message, ("www-authenticate", 'Basic realm="headrace"'))
