"""What the tracking plan marks as identifying a person, hashed or left out: functions of DataFrames that do as `headrace.privacy.masked`.

It comes after the checks and the content hash, which are of the event as it was sent, and before anything is written to silver.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from headrace.privacy import DROP, EACH, HASH, Tree, pads

_MEMBERS, _ITEMS = "map<string, variant>", "array<variant>"
_ATTRIBUTES = ("subject", "data", "enrichment")


@dataclass(frozen=True)
class Marks:
    """What is marked of each event type of the tracking plan, by type, and the key of its hashes."""

    by_type: Mapping[str, Tree]
    key: str = field(repr=False)


def masked(rows: DataFrame, marks: Marks) -> DataFrame:
    """`rows` with bronze's columns subject, data and enrichment as silver may hold them.

    Of a type that the plan does not know nobody can say what identifies a person: data and enrichment are left out, the subject is hashed.
    Where nothing is marked, the text stays as it came.
    """
    unknown = ~F.col("type").isin(list(marks.by_type))
    columns = {name: F.when(unknown, _hashed(F.col(name), marks.key) if name == "subject" else F.lit(None)) for name in _ATTRIBUTES}
    for type, of in marks.by_type.items():
        for name, mark in of.items():
            columns[name] = columns[name].when(F.col("type") == type, _text(F.col(name), mark, marks.key))
    return rows.withColumns({name: column.otherwise(F.col(name)) for name, column in columns.items()})


def _text(text: Column, mark: "str | Tree", key: str) -> Column:
    """A text, or JSON text of which `mark` names parts. What is no JSON text becomes null."""
    if isinstance(mark, str):
        return _hashed(text, key) if mark == HASH else F.lit(None).cast("string")
    return F.coalesce(*(F.to_json(part) for part in _parts(text, mark, key)))


def _parts(text: Column, marks: Tree, key: str) -> list[Column]:
    """JSON text as an object and as an array, of which one is null, with what is marked hashed or left out."""
    gone = [name for name, mark in marks.items() if mark == DROP]
    members = F.map_filter(F.from_json(text, _MEMBERS), lambda name, _: ~name.isin(gone))
    found = [F.transform_values(members, lambda name, value: _member(name, value, marks, key))]
    if EACH in marks:
        items = F.from_json(text, _ITEMS)
        found.append(F.transform(items, lambda value: _variant(value, marks[EACH], key)))
    return found


def _member(name: Column, value: Column, marks: Tree, key: str) -> Column:
    found = value
    for other, mark in marks.items():
        if mark != DROP:
            found = F.when(name == other, _variant(value, mark, key)).otherwise(found)
    return found


def _variant(value: Column, mark: "str | Tree", key: str) -> Column:
    nothing = F.lit(None).cast("variant")
    if isinstance(mark, str):
        is_text = (F.schema_of_variant(value) == "STRING") & F.lit(mark == HASH)
        return F.when(is_text, _hashed(value.cast("string"), key).cast("variant")).otherwise(nothing)
    inner = F.parse_json(_text(F.to_json(value), mark, key))
    return F.when(F.schema_of_variant(value).startswith("OBJECT") | F.schema_of_variant(value).startswith("ARRAY"), inner).otherwise(value)


def _hashed(text: Column, key: str) -> Column:
    """HMAC-SHA-256 in hex, from SHA-256."""
    inner, outer = (F.lit(bytearray(pad)) for pad in pads(key))
    return F.sha2(F.concat(outer, F.unhex(F.sha2(F.concat(inner, F.encode(text, "utf-8")), 256))), 256)
