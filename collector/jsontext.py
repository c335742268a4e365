"""What JSON text may be, beyond its grammar, so that every station behind reads the same value from it. Pure.

RFC 8259 leaves open what a repeated key, a lone surrogate or a number outside of a double means; docs/decisions/0001 closes it.
"""

import json
import re
from typing import Any

import orjson

from headrace.dead_letter import Invalid, Reason

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_REPLACEMENT = rb"\ufffd"


def check_object(text: bytes, max_depth: int) -> None:
    """Refuse `text` (JSON by its grammar) unless it is an object that orjson, Elasticsearch and Spark read alike.

    Raises Invalid: MALFORMED for another kind of value, deep nesting, a repeated or an empty key; UNPARSEABLE for what no
    strict parser takes (invalid UTF-8, a number too large for a double).
    """
    if text[:1] != b"{":
        raise Invalid(Reason.MALFORMED, f"data is {text[:20].decode(errors='replace')!r}: it must be a JSON object")
    nested = text.count(b"{") + text.count(b"[")
    if nested > max_depth and depth(text) > max_depth:
        raise Invalid(Reason.MALFORMED, f"data is nested deeper than {max_depth} levels")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Invalid(Reason.UNPARSEABLE, f"data is not JSON that can be read: {error}") from None
    if nested > 1 or not _has_as_many_keys(text, len(value)):
        json.loads(text, object_pairs_hook=_refuse_repeated_keys)
    elif "" in value:
        _refuse_repeated_keys([("", None)])


def depth(text: bytes) -> int:
    """How deep objects and arrays are nested in `text`."""
    deepest = level = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in b"{[":
            level += 1
            deepest = max(deepest, level)
        elif first in b"}]":
            level -= 1
    return deepest


def without_lone_surrogates(text: bytes) -> bytes:
    r"""`text` with each escape of a lone surrogate replaced by `\ufffd`, of the same length."""
    return _ESCAPE.sub(_replaced, text)


def _replaced(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    return _REPLACEMENT if len(escape) == 6 else escape


def _has_as_many_keys(text: bytes, wanted: int) -> bool:
    """True only if the flat object `text` has `wanted` keys, none of them repeated; False where a quick look cannot tell."""
    if b" :" in text or b"\t:" in text or b"\n:" in text or b"\r:" in text:
        return False
    return text.count(b'":') == wanted


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(Reason.MALFORMED, f"data has the key {key[:50]!r} twice in one object")
        if not key:
            raise Invalid(Reason.MALFORMED, "data has an empty key")
        seen.add(key)
