"""The OpenAPI document of the collector, and a page that shows it without fetching anything from elsewhere."""

import html
from collections.abc import Sequence
from typing import Any

import msgspec

from collector import otlp
from collector.cloudevents import ATTRIBUTES
from collector.inflate import ENCODINGS
from collector.segment import CALLS
from headrace.dead_letter import Reason

Json = dict[str, Any]


def _answer(description: str, *schemas: str, **headers: str) -> Json:
    """`headers` are always there, unless their description says when they are."""
    refs = [{"$ref": f"#/components/schemas/{schema}"} for schema in schemas]
    answer: Json = {"description": description, "content": {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}}
    if headers:
        answer["headers"] = {name.replace("_", "-"): _header(text) for name, text in headers.items()}
    return answer


def _header(text: str) -> Json:
    whole = text == "seconds"
    schema: Json = {"type": "integer", "minimum": 1} if whole else {"type": "string"}
    return {"description": text, "schema": schema, "required": "where" not in text}


_NOT_NOW = "Nothing is promised: Kafka cannot take events now, or the collector holds all that it may. Send the same again."
_SLOW = "The request was not here whole in time. The connection is closed, as after each of 408, 413, 417 and 431."
# What any request may be answered, before it is known what it asks for.
_ANY: Json = {
    "400": _answer("This is not an HTTP request.", "Error"),
    "405": _answer("The path has no such method.", "Error", Allow="those that it has"),
    "408": _answer(_SLOW, "Error"),
    "413": _answer("The request is too large.", "Error"),
    "417": _answer("It expects something other than 100-continue.", "Error"),
    "431": _answer("Request line and headers, or trailers, are too large.", "Error"),
    "503": _answer("Too many connections or requests.", "Error", Retry_After="seconds"),
}
_GONE: Json = {"404": _answer("It is served at the port COLLECTOR_ADMIN_PORT.", "Error")}

_ANSWERS: Json = _ANY | {
    "200": _answer("Durable: every event is in events.raw or, where it is named in `rejected`, in the dead-letter topic.", "Taken"),
    "400": _answer("The body as a whole cannot be read. Its bytes are kept in the dead-letter topic. Or this is not HTTP.", "Error"),
    "401": _answer("No known write key.", "Error", WWW_Authenticate="Basic"),
    "403": _answer("The write key may not be used on pages of this origin.", "Error"),
    "413": _answer("The request is too large, as sent or without compression, or holds too many events.", "Error"),
    "415": _answer(
        "The content type or the content encoding is not supported.",
        "Error",
        Accept_Encoding="those that are supported, where it is the encoding",
    ),
    "429": _answer("The write key has sent as much as it may; nothing was taken. Send the same later.", "Error", Retry_After="seconds"),
    "503": _answer(_NOT_NOW, "Error", Retry_After="seconds"),
}

_ID: Json = {"type": ["string", "integer", "null"]}
_OBJECT: Json = {"type": ["object", "null"]}
_TEXT: Json = {"type": ["string", "null"]}
_TIME: Json = {"type": ["string", "null"], "description": "RFC 3339 with a time zone"}


def _as_otlp(status: str, answer: Json) -> Json:
    """In the encoding of the request; what is refused before it is known what is asked for is an `Error` as everywhere."""
    schemas = ["LogsTaken"] if status == "200" else ["RpcStatus", "Error"] if status in _ANY else ["RpcStatus"]
    content = _answer("", *schemas)["content"] | {otlp.PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}
    return answer | {"content": content}


_OTLP_ANSWERS: Json = {status: _as_otlp(status, answer) for status, answer in _ANSWERS.items()}
_OTLP_ANSWERS["200"]["description"] = "Durable. Records that were refused are counted in `partialSuccess`."

_SCHEMAS: Json = {
    "Taken": {
        "type": "object",
        "required": ["accepted", "rejected"],
        "properties": {
            "accepted": {"type": "integer", "description": "Events in events.raw."},
            "rejected": {"type": "array", "items": {"$ref": "#/components/schemas/Rejected"}},
        },
    },
    "Rejected": {
        "type": "object",
        "required": ["index", "id", "reason", "detail"],
        "properties": {
            "index": {"type": "integer", "description": "Place of the event in the request, from 0."},
            "id": {"type": ["string", "null"]},
            "reason": {"type": "string", "enum": [str(reason) for reason in Reason]},
            "detail": {"type": "string", "description": "What was wrong, for a person."},
        },
    },
    "Error": {
        "type": "object",
        "required": ["code", "message"],
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
    },
    "RpcStatus": {
        "type": "object",
        "description": "google.rpc.Status",
        "required": ["code", "message"],
        "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
    },
    "LogsTaken": {
        "type": "object",
        "description": "opentelemetry.proto.collector.logs.v1.ExportLogsServiceResponse",
        "properties": {
            "partialSuccess": {
                "type": "object",
                "properties": {"rejectedLogRecords": {"type": "string", "description": "How many."}, "errorMessage": {"type": "string"}},
            },
        },
    },
    "Logs": {
        "type": "object",
        "description": "opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest",
        "required": ["resourceLogs"],
        "properties": {"resourceLogs": {"type": "array", "items": {"type": "object"}}},
    },
    "Status": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}},
    "CloudEvent": {
        "type": "object",
        "required": ["id", "source", "type", "data"],
        "properties": {
            "specversion": {"type": "string", "const": "1.0"},
            "id": {"type": "string", "minLength": 1, "maxLength": 200},
            "source": {"type": "string", "minLength": 1, "maxLength": 200},
            "type": {"type": "string", "description": "An event type of the tracking plan."},
            "time": {**_TIME, "description": "RFC 3339 with a time zone. Absent: when it was received."},
            "subject": {"type": ["string", "null"], "maxLength": 500},
            "dataschema": {"type": ["string", "null"], "description": "A schema ref, such as purchase/1-0-0."},
            "data": {"type": "object"},
        },
    },
    "Call": {
        "type": "object",
        "required": ["messageId"],
        "properties": {
            "type": {"type": "string", "enum": list(CALLS), "description": "Needed in a batch; elsewhere the path says it."},
            "messageId": {"type": "string", "minLength": 1, "maxLength": 200},
            "userId": _ID,
            "anonymousId": _ID,
            "event": {**_TEXT, "description": "The name of a track call's event."},
            "timestamp": _TIME,
            "originalTimestamp": _TIME,
            "properties": _OBJECT,
            "traits": _OBJECT,
            "name": _TEXT,
            "category": _TEXT,
            "groupId": _ID,
            "previousId": _ID,
        },
    },
    "Batch": {
        "type": "object",
        "required": ["batch"],
        "properties": {
            "batch": {"type": "array", "maxItems": 500, "items": {"$ref": "#/components/schemas/Call"}},
            "writeKey": {**_TEXT, "description": "For senders that can set no header."},
        },
    },
}


_ENCODING: Json = {
    "name": "Content-Encoding",
    "in": "header",
    "description": "How the body is compressed.",
    "schema": {"type": "string", "enum": [*ENCODINGS, "x-gzip"]},
}
_HEADER = {"in": "header", "schema": {"type": "string"}}
_BINARY = [{"name": f"ce-{name}", **_HEADER, "description": f"{name}, in binary form; percent-encoded"} for name in ATTRIBUTES]
_IN_QUERY: list[Json] = [{"basic": []}, {"bearer": []}, {"query": []}]


def _methods(*names: str) -> Json:
    """What OPTIONS says; pages of origins that a key allows get the headers of CORS too."""
    headers = {"Allow": {"description": ", ".join(names), "schema": {"type": "string"}, "required": True}}
    return {"options": _operation("What may be done here", "operation", _ANY | {"204": {"description": "In Allow.", "headers": headers}})}


def _operation(summary: str, tag: str, answers: Json, **more: Any) -> Json:
    return {"summary": summary, "tags": [tag], "responses": dict(sorted(answers.items())), "security": [], **more}


def _post(
    summary: str, tag: str, media_types: Json, security: list[Json], *, answers: Json = _ANSWERS, parameters: Sequence[Json] = ()
) -> Json:
    body = {"required": True, "content": {name: {"schema": schema} for name, schema in media_types.items()}}
    more = {"security": security, "parameters": [_ENCODING, *parameters], "requestBody": body}
    return {"post": _operation(summary, tag, answers, **more)} | _methods("POST", "OPTIONS")


def _get(summary: str, ok: Json, more: Json = _ANY) -> Json:
    """HEAD answers without a body, so that only the headers are described."""
    without = {status: {"description": answer["description"]} for status, answer in ({"200": ok} | more).items()}
    get, head = _operation(summary, "operation", {"200": ok} | more), _operation(summary, "operation", without)
    return {"get": get, "head": head} | _methods("GET", "HEAD", "OPTIONS")


def _said(media_type: str, schema: Json) -> Json:
    return {"description": "OK", "content": {media_type: {"schema": schema}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_PLAIN = ("application/json", "text/json", "text/plain")
_KEY: list[Json] = [{"basic": []}, {"bearer": []}]
_ONE, _MANY = _ref("CloudEvent"), {"type": "array", "maxItems": 500, "items": _ref("CloudEvent")}

_PATHS: Json = {
    "/v1/events": _post(
        "CloudEvents 1.0: structured, batched, or binary (attributes in ce-* headers, data as the body)",
        "CloudEvents",
        {
            "application/cloudevents+json": _ONE,
            "application/cloudevents-batch+json": _MANY,
            "application/json": {"anyOf": [_ONE, _MANY, {"type": "object", "description": "data, in binary form"}]},
        },
        _KEY,
        parameters=_BINARY,
    ),
    "/v1/batch": _post("Calls of a Segment or RudderStack SDK", "Segment", dict.fromkeys(_PLAIN, _ref("Batch")), _IN_QUERY),
    **{f"/v1/{call}": _post(f"One {call} call", "Segment", dict.fromkeys(_PLAIN, _ref("Call")), _IN_QUERY) for call in CALLS},
    otlp.PATH: _post(
        "Log records of an OpenTelemetry exporter (OTLP/HTTP); the answer is in the encoding of the request",
        "OpenTelemetry",
        {otlp.JSON: _ref("Logs"), otlp.PROTOBUF: {"type": "string", "format": "binary"}},
        _KEY,
        answers=_OTLP_ANSWERS,
    ),
    "/healthz": _get("Alive", _answer("The process runs.", "Status")),
    "/readyz": _get(
        "Ready",
        _answer("Kafka can take events now.", "Status"),
        _ANY | {"503": _answer("It cannot.", "Error", Retry_After="seconds")},
    ),
    "/metrics": _get("Prometheus metrics", _said("text/plain", {"type": "string"}), _ANY | _GONE),
    "/openapi.json": _get("This document", _said("application/json", {"type": "object"}), _ANY | _GONE),
    "/docs": _get("This document for people", _said("text/html", {"type": "string"}), _ANY | _GONE),
}

_DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Headrace collector",
        "version": "1",
        "description": "Takes events. 200 means durable; a refused event never refuses its batch. The write key is the user name of Basic "
        "authentication or a Bearer token; calls of Segment SDKs may carry it as ?writeKey= or as a member of the body. "
        "Any other path is answered 404.",
    },
    "security": _KEY,
    "paths": _PATHS,
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {
            "basic": {"type": "http", "scheme": "basic", "description": "The write key as the user name; the password does not matter."},
            "bearer": {"type": "http", "scheme": "bearer", "description": "The write key."},
            "query": {"type": "apiKey", "in": "query", "name": "writeKey", "description": "For senders that can set no header."},
        },
    },
}

DOCUMENT = msgspec.json.encode(_DOCUMENT)


def _page() -> str:
    def pretty(value: Json) -> str:
        return html.escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

    rows = []
    for path, operations in _PATHS.items():
        for method in operations.keys() & {"get", "post"}:
            operation = operations[method]
            responses = operation["responses"].items()
            answers = "".join(f"<dt>{status}</dt><dd>{html.escape(of['description'])}</dd>" for status, of in responses)
            takes = ""
            if "requestBody" in operation:
                content = operation["requestBody"]["content"]
                takes = f"<p>Takes {html.escape(', '.join(content))}.</p>"
            rows.append(
                f"<details><summary><b>{method.upper()}</b> <code>{path}</code> {html.escape(operation['summary'])}</summary>"
                f"{takes}<dl>{answers}</dl></details>"
            )
    schemas = "".join(f"<details><summary><code>{name}</code></summary><pre>{pretty(of)}</pre></details>" for name, of in _SCHEMAS.items())
    info = _DOCUMENT["info"]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{info['title']}</title><style>body{{font:16px/1.5 system-ui;max-width:56rem;margin:2rem auto;padding:0 1rem}}"
        "summary{cursor:pointer;padding:.3rem 0}dt{font-weight:bold}pre{background:#f4f4f4;padding:1rem;overflow:auto}</style>"
        f"<h1>{info['title']}</h1><p>{html.escape(info['description'])} <a href=/openapi.json>openapi.json</a></p>"
        f"<h2>Routes</h2>{''.join(rows)}<h2>Schemas</h2>{schemas}</html>"
    )


PAGE = _page().encode()
