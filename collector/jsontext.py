"""What JSON text may be, beyond its grammar, so that every station behind reads the same value from it. Pure.

RFC 8259 leaves open what a repeated key, a lone surrogate or a number outside of a double means; docs/decisions/0002 closes it.
"""

import json
import re
from typing import Any

import orjson

from headrace.dead_letter import Invalid, Reason

_NESTED = (dict, list)
_is_plain = str.isidentifier
_is_dotted = re.compile(r"\w+(?:\.\w+)+").fullmatch  # as OpenTelemetry names its attributes
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_REPLACEMENT = rb"\ufffd"


def check_object(text: bytes, max_depth: int) -> None:
    """Refuse `text` (JSON by its grammar) unless it is an object that orjson, Elasticsearch and Spark read alike.

    Raises Invalid: MALFORMED for another kind of value, deep nesting, a repeated or a blank key; UNPARSEABLE for what no
    strict parser takes (invalid UTF-8, a number too large for a double).
    """
    if not text.startswith(b"{"):
        raise Invalid(Reason.MALFORMED, f"data is {text[:20].decode(errors='replace')!r}: it must be a JSON object")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if depth(text) <= max_depth:
            raise Invalid(Reason.UNPARSEABLE, f"data is not JSON that can be read: {error}") from None
    else:
        arrays = text.count(b"[")
        # Every key has its colon, so where there are no more colons than keys at the top, there are no other keys, and none twice.
        if arrays < max_depth and text.count(b":") == len(value) and all(map(_is_plain, value)):
            return
        if arrays + text.count(b"{") <= max_depth or depth(text) <= max_depth:
            if not _surely_fine(text, value):
                json.loads(text, object_pairs_hook=_check_keys)
            return
    raise Invalid(Reason.MALFORMED, f"data is nested deeper than {max_depth} levels")


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


def _surely_fine(text: bytes, value: dict[str, Any]) -> bool:
    """True where a quick look shows that all keys of `text`, which was read as `value`, are plain words and none stands twice.

    Where no white space is before a colon, each key ends in `":`; a string may hold that too, so there are never fewer of them than keys.
    """
    if b" " in text and b" :" in text:
        return False
    if b"\n" in text or b"\t" in text or b"\r" in text:  # written for people, so rare
        return False
    return text.count(b'":') == _count_plain_keys(value)


def _count_plain_keys(value: Any) -> int:
    if type(value) is list:
        count, inner = 0, value
    else:
        count, inner = sum(map(_is_plain, value)), value.values()
        if count < len(value):
            count += sum(1 for key in value if _is_dotted(key))
    for one in inner:
        if type(one) in _NESTED:
            count += _count_plain_keys(one)
    return count


def _check_keys(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(Reason.MALFORMED, f"data has the key {key[:50]!r} twice in one object")
        if not all(part.strip() for part in key.split(".")):
            raise Invalid(Reason.MALFORMED, f"data has the key {key[:50]!r}: a key, and each of its parts between dots, needs a character")
        seen.add(key)
