"""What an exporter is told: the collector's answer in the form of OTLP/HTTP, in the encoding of the request. Pure."""

from typing import Any

import msgspec
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse

from collector.otlp import JSON, PROTOBUF

# google.rpc.Code for each status that the collector answers with.
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 415: 3, 429: 8, 503: 14}
_INTERNAL = 13


def in_form(status: int, body: bytes, content_type: str) -> tuple[bytes, str]:
    """Body and media type of the answer to a request with this content type, which the collector would have answered with `body`.

    An ExportLogsServiceResponse where `status` is 200, else a google.rpc.Status.
    """
    said = msgspec.json.decode(body)
    protobuf = content_type.partition(";")[0].strip().lower() == PROTOBUF
    if status == 200:
        count, words = len(said["rejected"]), _words(said)
        if protobuf:
            success = ExportLogsPartialSuccess(rejected_log_records=count, error_message=words) if count else None
            return ExportLogsServiceResponse(partial_success=success).SerializeToString(), PROTOBUF
        partial = {"partialSuccess": {"rejectedLogRecords": str(count), "errorMessage": words}} if count else {}
        return msgspec.json.encode(partial), JSON
    code = _CODES.get(status, _INTERNAL)
    message = f"{said['code']}: {said['message']}"
    if protobuf:  # on the wire, a number 1 and a text 2 are a google.rpc.Status too, whose own package would be here for this alone
        return ExportLogsPartialSuccess(rejected_log_records=code, error_message=message).SerializeToString(), PROTOBUF
    return msgspec.json.encode({"code": code, "message": message}), JSON


def _words(said: dict[str, Any]) -> str:
    rejected = said["rejected"]
    if not rejected:
        return ""
    first = rejected[0]
    total = said["accepted"] + len(rejected)
    return f"{len(rejected)} of {total} log records were refused for good; the first is number {first['index']}: {first['detail']}"
