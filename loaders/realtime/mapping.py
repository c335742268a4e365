"""From the tracking plan to index templates, and from messages to documents. Pure.

Two things in the templates are for Trino, which reads the aliases as tables. It takes the columns of an alias from any one of its indices,
so all of them show the same columns: `data` and `enrichment` appear as JSON text (`asRawJson`), as they do in the lake, whatever
properties the type has. And it cannot read arrays that it was not told of: there are none at the top level.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from headrace import event, privacy
from headrace.dead_letter import DeadLetter
from headrace.event import EnrichedEvent
from headrace.registry import SKIPPED, Registry

Json = dict[str, Any]

EVENTS = "events"
DEAD_LETTERS = "dead-letters"
EVENTS_ALIAS = "events_all"
DEAD_LETTERS_ALIAS = "dead_letters_all"
# Empty indices that are always there, so that the aliases are, too.
STARTERS = (f"{EVENTS}-starter", f"{DEAD_LETTERS}-starter")

_KEYWORD: Json = {"type": "keyword", "ignore_above": 8191}  # 4 bytes a character stay below Lucene's 32,766
_DATE: Json = {"type": "date", "ignore_malformed": True}
_TEXT: Json = {"type": "text", "index": False}  # kept and shown, at any length; not searched
_STORED: Json = {"type": "object", "enabled": False}  # kept, whatever it is; not searched
_SETTINGS: Json = {
    "number_of_shards": 1,
    "number_of_replicas": 0,
    "refresh_interval": "1s",
    "mapping.ignore_malformed": True,  # a value that does not fit its field is kept and not searched; the document is not refused
}
_PLACEHOLDER: Json = {"_": _KEYWORD}  # Trino leaves out an object that has no properties


def templates(registry: Registry) -> dict[str, Json]:
    """The index templates by name: one for each event type, one for types that are no longer in the plan, one for dead letters."""
    names = sorted({name for plan in registry.types.values() for name in plan.enrich})
    fields: Json = {"score": {"type": "double"}, **dict.fromkeys(("model", "version", "features", "variant"), _KEYWORD)}
    enrichment = {name: _object(fields) for name in names}
    if names:
        enrichment[SKIPPED] = _object(dict.fromkeys(names, _KEYWORD))
    found = {f"headrace-{EVENTS}": _events_template(f"{EVENTS}-*", 100, {}, enrichment)}
    for name in registry.types:
        data = _merged(schema for ref, schema in registry.schemas.items() if ref.startswith(name + "/"))
        found[f"headrace-{EVENTS}-{name}"] = _events_template(f"{EVENTS}-{name}-*", 200, data, enrichment)
    found[f"headrace-{DEAD_LETTERS}"] = _template(f"{DEAD_LETTERS}-*", 100, DEAD_LETTERS_ALIAS, {"properties": _DEAD_LETTER_FIELDS})
    return found


_EVENT_FIELDS: Json = {
    **dict.fromkeys(("id", "source", "type", "subject", "dataschema"), _KEYWORD),
    **dict.fromkeys(("time", "received_at", "enriched_at"), _DATE),
    **dict.fromkeys(("collector_id", "protocol", "key_id", "client", "user_agent"), _KEYWORD),
}
_DEAD_LETTER_FIELDS: Json = {
    **dict.fromkeys(("dead_letter_id", "service", "reason", "payload_encoding", "id", "source", "type", "subject"), _KEYWORD),
    **dict.fromkeys(("key_id", "origin_topic"), _KEYWORD),
    "time": _KEYWORD,  # as it was sent, which may be no time at all
    "detail": {**_TEXT, "index": True},
    "payload": _TEXT,
    "rejected_at": _DATE,
    "received_at": _DATE,
    "origin_partition": {"type": "integer"},
    "origin_offset": {"type": "long"},
}


def _template(pattern: str, priority: int, alias: str, mappings: Json) -> Json:
    whole = {"settings": {"index": _SETTINGS}, "mappings": {"dynamic": False, **mappings}, "aliases": {alias: {}}}
    return {"index_patterns": [pattern], "priority": priority, "template": whole}


def _events_template(pattern: str, priority: int, data: Json, enrichment: Json) -> Json:
    fields = {**_EVENT_FIELDS, "data": _object(data or _PLACEHOLDER), "enrichment": _object(enrichment or _PLACEHOLDER)}
    as_text = {"trino": {"data": {"asRawJson": True}, "enrichment": {"asRawJson": True}}}
    return _template(pattern, priority, EVENTS_ALIAS, {"_meta": as_text, "properties": fields})


def _object(properties: Json) -> Json:
    return {"type": "object", "dynamic": False, "properties": properties}


def _merged(schemas: Iterable[Json]) -> Json:
    """The fields of all versions of one type. Where two versions disagree, the field is kept but not searched."""
    merged: Json = {}
    for schema in schemas:
        for name, of in schema.get("properties", {}).items():
            if not name or "." in name or name.strip() != name:
                continue  # a name that Elasticsearch reads as a path
            field = _field(of)
            merged[name] = field if merged.setdefault(name, field) == field else _wider(merged[name], field)
    return merged


def _wider(one: Json, other: Json) -> Json:
    kinds = {one["type"], other["type"]}
    return {"type": "double"} if kinds == {"long", "double"} else _STORED


def _field(schema: object) -> Json:
    """How a property of a JSON Schema is indexed. What no field of Elasticsearch can hold is kept and not searched."""
    if not isinstance(schema, dict):
        return _STORED
    said = schema.get("type")
    kinds = {said} if isinstance(said, str) else set(said or ())
    kinds.discard("null")
    if kinds == {"array"}:
        return _field(schema["items"]) if isinstance(schema.get("items"), dict) else _STORED
    if kinds == {"object"}:
        inner = _merged([schema])
        return _object(inner) if inner else _STORED
    if kinds == {"string"}:
        return _DATE if schema.get("format") in ("date", "date-time") else _KEYWORD
    if kinds == {"integer"}:
        return {"type": "long"}
    if kinds <= {"integer", "number"} and kinds:
        return {"type": "double"}
    if kinds == {"boolean"}:
        return {"type": "boolean"}
    return _STORED


# ---- documents ----


class _EventDocument(msgspec.Struct, omit_defaults=True):
    id: str
    source: str
    type: str
    time: str
    received_at: str
    enriched_at: str
    dataschema: str
    data: msgspec.Raw
    enrichment: msgspec.Raw
    collector_id: str
    protocol: str
    subject: str | None = None
    key_id: str | None = None
    client: str | None = None
    user_agent: str | None = None


class Document(msgspec.Struct, frozen=True):
    """What a bulk request says of one document: JSON on one line, and where it goes."""

    index: str
    id: str
    source: bytes


_encode = msgspec.json.Encoder().encode


def _day(moment: str) -> str:
    return moment[:10].replace("-", ".")


class Marks:
    """What the tracking plan marks as identifying a person, and the key of its hashes."""

    def __init__(self, by_type: Mapping[str, privacy.Tree], key: str) -> None:
        self._by_type = {type: marks for type, marks in by_type.items() if marks}
        self._key = key

    def masked(self, of: EnrichedEvent) -> EnrichedEvent:
        """`of` as an index may hold it: itself where nothing of its type is marked."""
        marks = self._by_type.get(of.type)
        if marks is None:
            return of
        values = {"data": msgspec.json.decode(of.data), "enrichment": msgspec.json.decode(of.enrichment), "subject": of.subject}
        values = privacy.masked(values, marks, self._key)
        data, enrichment = (msgspec.Raw(_encode(values[name])) for name in ("data", "enrichment"))
        return msgspec.structs.replace(of, data=data, enrichment=enrichment, subject=values.get("subject"))


UNMARKED = Marks({}, "")


def event_document(of: EnrichedEvent, marks: Marks = UNMARKED) -> Document:
    """The document of an event. Its id is the same for all sendings of the event."""
    of = marks.masked(of)
    receipt = of.receipt
    document = _EventDocument(
        id=of.id,
        source=of.source,
        type=of.type,
        time=of.time,
        received_at=of.received_at,
        enriched_at=of.enriched_at,
        dataschema=of.dataschema,
        data=of.data,
        enrichment=of.enrichment,
        collector_id=receipt.collector_id,
        protocol=receipt.protocol,
        subject=of.subject,
        key_id=receipt.key_id,
        client=receipt.client,
        user_agent=receipt.user_agent,
    )
    id = hashlib.sha256(event.identity_key(of.source, of.id)).hexdigest()
    return Document(f"{EVENTS}-{of.type}-{_day(of.received_at)}", id, _one_line(_encode(document)))


def dead_letter_document(letter: DeadLetter) -> Document:
    """The document of a dead letter: every dead letter has one, and none is refused for what its payload is."""
    return Document(f"{DEAD_LETTERS}-{_day(letter.rejected_at)}", letter.dead_letter_id, _one_line(_encode(letter)))


def bare_dead_letter_document(letter: DeadLetter, why: str) -> Document:
    """What stands for a dead letter that Elasticsearch refused all the same: no payload, only what we wrote ourselves."""
    keep: Mapping[str, str] = {
        "dead_letter_id": letter.dead_letter_id,
        "service": letter.service,
        "reason": letter.reason,
        "rejected_at": letter.rejected_at,
        "detail": f"Elasticsearch takes no more of it ({why[:300]}); the whole is in the lake",
    }
    return Document(f"{DEAD_LETTERS}-{_day(letter.rejected_at)}", letter.dead_letter_id, _encode(keep))


def _one_line(json: bytes) -> bytes:
    """In JSON a line break stands only between tokens, where a space says the same; a bulk request is cut at line breaks."""
    return json.replace(b"\n", b" ") if b"\n" in json else json
