"""OTLP's JSON encoding. Pure.

It is protobuf's JSON mapping, but ids are in hex and enums are numbers; unknown members are ignored.
"""

import base64
import re
from functools import cache
from typing import Any, NamedTuple

import msgspec

from collector import jsontext
from collector.accept import Limits
from collector.otlp.record import Cut, Record, members
from collector.reading import check_count, elements, row
from headrace.dead_letter import Invalid, Reason
from headrace.protobuf import number

_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_Raw = msgspec.Raw
_Integer = int | str | None  # 64-bit integers are strings there; numbers are taken too


class _Values(msgspec.Struct):
    values: "list[_Value] | None" = None


class _Pairs(msgspec.Struct):
    values: "list[_Pair] | None" = None


class _Value(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: _Integer = None
    double_value: float | str | None = None
    array_value: _Values | None = None
    kvlist_value: _Pairs | None = None
    bytes_value: str | None = None


class _Pair(msgspec.Struct):
    key: str = ""
    value: _Value | None = None


class _Resource(msgspec.Struct):
    attributes: list[_Pair] | None = None


class _Scope(msgspec.Struct):
    name: str | None = None
    version: str | None = None
    attributes: list[_Pair] | None = None


class _LogRecord(msgspec.Struct, rename="camel"):
    time_unix_nano: _Integer = None
    observed_time_unix_nano: _Integer = None
    severity_number: int | None = None
    severity_text: str | None = None
    event_name: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    body: _Value | None = None
    attributes: list[_Pair] | None = None


_record = msgspec.json.Decoder(_LogRecord)
_resource = msgspec.json.Decoder(_Resource | None)
_scope = msgspec.json.Decoder(_Scope | None)


def cut(body: bytes, limits: Limits) -> list[Cut]:
    """The records of an ExportLogsServiceRequest. Raises Invalid (UNPARSEABLE, MALFORMED) or TooMany."""
    mended = body
    try:
        _check_json(body)
    except Invalid:
        mended = jsontext.without_lone_surrogates(body)
        if mended == body:
            raise
    cuts: list[Cut] = []
    scopes = 0
    for of in _children(_Part(body, mended), "resourceLogs", limits.events, needed=True):
        resource = _member(of, "resource")
        inners = _children(of, "scopeLogs", limits.events)
        scopes += len(inners)
        check_count(scopes, limits)
        for inner in inners:
            scope = _member(inner, "scope")
            cuts += [Cut(resource, scope, record.sent) for record in _children(inner, "logRecords", limits.events)]
            check_count(len(cuts), limits)
    return cuts


class _Part(NamedTuple):
    """A piece of the body as it was sent, and as it can be read: lone surrogates are mended there, of the same length."""

    sent: bytes
    mended: bytes


@cache
def _parts(member: str, most: int) -> msgspec.json.Decoder[Any]:
    """Reads of an object the array `member`, and only where its elements are: what a request costs is known before they are read."""
    fields: list[Any] = [("parts", row(_Raw, most) | None, msgspec.UNSET)]
    return msgspec.json.Decoder(msgspec.defstruct("Parts", fields, rename={"parts": member}))


def _children(of: _Part, member: str, most: int, *, needed: bool = False) -> list[_Part]:
    parts = _decoded(_parts(member, most), of).parts
    if parts is msgspec.UNSET and needed:
        raise _not_of_form(f"Object missing required field `{member}`")
    found, end = [], 0
    for raw in map(bytes, elements(parts, most) if parts else ()):
        start = of.mended.index(raw, end)
        end = start + len(raw)
        found.append(_Part(of.sent[start:end], raw))
    return found


@cache
def _one(member: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(msgspec.defstruct("One", [("part", _Raw, _Raw(b"{}"))], rename={"part": member}))


def _member(of: _Part, member: str) -> bytes:
    raw = bytes(_decoded(_one(member), of).part)
    start = of.mended.find(raw)
    return raw if start < 0 else of.sent[start : start + len(raw)]


def _decoded(decoder: msgspec.json.Decoder[Any], of: _Part) -> Any:
    try:
        return decoder.decode(of.mended)
    except msgspec.ValidationError as error:
        raise _not_of_form(str(error)) from None
    except _NOT_JSON as error:  # a key that was only skipped before
        raise Invalid(Reason.UNPARSEABLE, f"the body is not JSON: {error}") from None


def _check_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=_Raw)
    except RecursionError:
        raise Invalid(Reason.MALFORMED, "the body is nested too deeply to be read") from None
    except _NOT_JSON as error:
        raise Invalid(Reason.UNPARSEABLE, f"the body is not JSON: {error}") from None


def _not_of_form(why: str) -> Invalid:
    return Invalid(Reason.MALFORMED, f'the body must be a JSON object with an array "resourceLogs": {why}')


def alone(of: Cut) -> bytes:
    """A request that holds this record only."""
    return b'{"resourceLogs":[{"resource":%b,"scopeLogs":[{"scope":%b,"logRecords":[%b]}]}]}' % of


def record(raw: bytes) -> Record:
    """Raises Invalid (UNPARSEABLE or MALFORMED), as do the functions below."""
    of: _LogRecord = _read(_record, raw, "log record")
    try:
        return Record(
            time=_integer(of.time_unix_nano, 0, 2**64),
            observed_time=_integer(of.observed_time_unix_nano, 0, 2**64),
            severity_number=_integer(of.severity_number, -(2**31), 2**31),
            severity_text=of.severity_text or "",
            event_name=of.event_name or "",
            trace_id=_id(of.trace_id),
            span_id=_id(of.span_id),
            body=_value(of.body),
            attributes=_members(of.attributes),
        )
    except RecursionError:
        raise Invalid(Reason.MALFORMED, "the log record is nested too deeply to be read") from None


def resource(raw: bytes) -> dict[str, Any]:
    """The attributes of a resource."""
    return _members((_read(_resource, raw, "resource") or _Resource()).attributes)


def scope(raw: bytes) -> tuple[str, str, dict[str, Any]]:
    """Name, version and attributes of a scope."""
    of = _read(_scope, raw, "scope") or _Scope()
    return of.name or "", of.version or "", _members(of.attributes)


def _read(decoder: msgspec.json.Decoder[Any], raw: bytes, what: str) -> Any:
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise Invalid(Reason.MALFORMED, f"the {what} is not as OTLP has it: {error}") from None
    except RecursionError:
        raise Invalid(Reason.MALFORMED, f"the {what} is nested too deeply to be read") from None
    except _NOT_JSON as error:
        raise Invalid(Reason.UNPARSEABLE, f"the {what} is not JSON that can be read: {error}") from None


def _members(pairs: list[_Pair] | None) -> dict[str, Any]:
    return members((pair.key, _value(pair.value)) for pair in pairs or ())


def _value(of: _Value | None) -> Any:
    if of is None:
        return None
    if of.string_value is not None:
        return of.string_value
    if of.bool_value is not None:
        return of.bool_value
    if of.int_value is not None:
        return _integer(of.int_value, -(2**63), 2**63)
    if of.double_value is not None:
        return _double(of.double_value)
    if of.array_value is not None:
        return [_value(one) for one in of.array_value.values or ()]
    if of.kvlist_value is not None:
        return _members(of.kvlist_value.values)
    return None if of.bytes_value is None else _base64(of.bytes_value)


def _integer(given: _Integer, least: int, end: int) -> int:
    """`given`, which is at least `least` and below `end`; 0 where it is absent."""
    if isinstance(given, str) and not _INTEGER.fullmatch(given):
        raise Invalid(Reason.MALFORMED, f"{given[:50]!r} is no integer")
    value = int(given or 0)
    if not least <= value < end:
        raise Invalid(Reason.MALFORMED, f"the integer {str(value)[:50]} is out of range: it must be in {least}..{end - 1}")
    return value


def _double(given: float | str) -> float | str:
    try:
        return number(float(given))
    except ValueError:
        raise Invalid(Reason.MALFORMED, f"{str(given)[:50]!r} is no number") from None


def _id(given: str | None) -> bytes:
    """The bytes of an id; what is no hex counts as absent, as an id of a wrong length does."""
    try:
        return bytes.fromhex(given or "")
    except ValueError:
        return b""


def _base64(given: str) -> str:
    """`given` in the standard alphabet with padding; the JSON mapping of protobuf allows the URL-safe one, and none."""
    text = given.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64encode(base64.b64decode(text + "=" * (-len(text) % 4), validate=True)).decode()
    except ValueError:
        raise Invalid(Reason.MALFORMED, f"{given[:50]!r} is not base64") from None
