"""OpenTelemetry's log records over HTTP (OTLP 1.x), in protobuf and in JSON; docs/decisions/0008 has every rule."""

PATH = "/v1/logs"
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
