"""The OpenAPI document of the collector, and a page that shows it without fetching anything from elsewhere."""

import html
from typing import Any

import msgspec

from collector import otlp
from collector.segment import CALLS
from headrace.dead_letter import Reason

Json = dict[str, Any]


def _answer(description: str, schema: str, **headers: str) -> Json:
    answer: Json = {"description": description, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}
    if headers:
        answer["headers"] = {name.replace("_", "-"): {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    return answer


_ANSWERS: Json = {
    "200": _answer("Durable: every event is in events.raw or, where it is named in `rejected`, in the dead-letter topic.", "Taken"),
    "400": _answer("The body as a whole cannot be read. Its bytes are kept in the dead-letter topic.", "Error"),
    "401": _answer("No known write key.", "Error", WWW_Authenticate="Basic"),
    "403": _answer("The write key may not be used on pages of this origin.", "Error"),
    "413": _answer("The request is too large, or holds too many events.", "Error"),
    "415": _answer("The content type or the content encoding is not supported.", "Error"),
    "429": _answer("The write key has sent as much as it may; nothing was taken. Send the same later.", "Error", Retry_After="seconds"),
    "503": _answer("Nothing is promised: Kafka cannot take events now. Send the same again.", "Error", Retry_After="seconds"),
}

_ID: Json = {"type": ["string", "integer", "null"]}
_OBJECT: Json = {"type": ["object", "null"]}
_TEXT: Json = {"type": ["string", "null"]}
_TIME: Json = {"type": ["string", "null"], "description": "RFC 3339 with a time zone"}

_OTLP_ANSWERS: Json = {
    "200": _answer("Durable. Records that were refused are counted in `partialSuccess`.", "LogsTaken"),
    **{
        status: _answer(of["description"], "RpcStatus") | ({"headers": of["headers"]} if "headers" in of else {})
        for status, of in _ANSWERS.items()
        if status != "200"
    },
}

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


def _post(summary: str, tag: str, answers: Json = _ANSWERS, **media_types: Json) -> Json:
    content = {name: {"schema": schema} for name, schema in media_types.items()}
    return {"post": {"summary": summary, "tags": [tag], "requestBody": {"required": True, "content": content}, "responses": answers}}


def _get(summary: str, media_type: str, responses: Json | None = None) -> Json:
    ok = {"200": {"description": "OK", "content": {media_type: {"schema": {"type": "string"}}}}}
    return {"get": {"summary": summary, "tags": ["operation"], "security": [], "responses": responses or ok}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_PLAIN = ("application/json", "text/plain")
_ONE, _MANY = _ref("CloudEvent"), {"type": "array", "maxItems": 500, "items": _ref("CloudEvent")}

_PATHS: Json = {
    "/v1/events": _post(
        "CloudEvents 1.0: structured, batched, or binary (attributes in ce-* headers, data as the body)",
        "CloudEvents",
        **{
            "application/cloudevents+json": _ONE,
            "application/cloudevents-batch+json": _MANY,
            "application/json": {"anyOf": [_ONE, _MANY, {"type": "object", "description": "data, in binary form"}]},
        },
    ),
    "/v1/batch": _post("Calls of a Segment or RudderStack SDK", "Segment", **dict.fromkeys(_PLAIN, _ref("Batch"))),
    **{f"/v1/{call}": _post(f"One {call} call", "Segment", **dict.fromkeys(_PLAIN, _ref("Call"))) for call in CALLS},
    otlp.PATH: _post(
        "Log records of an OpenTelemetry exporter (OTLP/HTTP); the answer is in the encoding of the request",
        "OpenTelemetry",
        _OTLP_ANSWERS,
        **{otlp.JSON: _ref("Logs"), otlp.PROTOBUF: {"type": "string", "format": "binary"}},
    ),
    "/healthz": _get("Alive", "application/json", {"200": _answer("The process runs.", "Status")}),
    "/readyz": _get(
        "Ready", "application/json", {"200": _answer("Kafka can take events now.", "Status"), "503": _answer("It cannot.", "Error")}
    ),
    "/metrics": _get("Prometheus metrics", "text/plain"),
    "/openapi.json": _get("This document", "application/json", {"200": {"description": "OK", "content": {"application/json": {}}}}),
    "/docs": _get("This document for people", "text/html"),
}

_DOCUMENT: Json = {
    "openapi": "3.1.0",
    "info": {
        "title": "Headrace collector",
        "version": "1",
        "description": "Takes events. 200 means durable; a refused event never refuses its batch. The write key is the user name of Basic "
        "authentication or a Bearer token; calls of Segment SDKs may carry it as ?writeKey= or as a member of the body.",
    },
    "security": [{"basic": []}, {"bearer": []}],
    "paths": _PATHS,
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}, "bearer": {"type": "http", "scheme": "bearer"}},
    },
}

DOCUMENT = msgspec.json.encode(_DOCUMENT)


def _page() -> str:
    def pretty(value: Json) -> str:
        return html.escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

    rows = []
    for path, operations in _PATHS.items():
        for method, operation in operations.items():
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
