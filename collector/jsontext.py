"""What JSON text may be, beyond its grammar, so that every station behind reads the same value from it. Pure.

RFC 8259 leaves open what a repeated key, a lone surrogate or a number outside of a double means; docs/decisions/0002 closes it.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

import orjson

from headrace.dead_letter import Invalid, Reason

_NESTED = (dict, list)
_is_plain = str.isidentifier
_BLANK_PART = re.compile(r"(?:^|\.)\s*(?:\.|\Z)")
_ONLY_SQUARE = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_NO_ESCAPE = b"\x00\x00"  # what cannot stand in JSON text, and is as long as an escaped backslash
_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_HIGH = re.compile(rb"%b(?!%b)" % (_HIGH, _LOW))
_LONE_LOW = re.compile(rb"(?<!%b)%b" % (_HIGH, _LOW))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = rb"\\ufffd"  # as `re` reads it


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
        if depth(text, max_depth) <= max_depth:
            raise Invalid(Reason.UNPARSEABLE, f"data is not JSON that can be read: {error}") from None
    else:
        arrays = text.count(b"[")
        # Every key has its colon, so where there are no more colons than keys at the top, there are no other keys, and none twice.
        if arrays < max_depth and text.count(b":") == len(value) and all(map(_is_plain, value)):
            return
        if arrays + text.count(b"{") <= max_depth or depth(text, max_depth) <= max_depth:
            _check_keys(text, value)
            return
    raise Invalid(Reason.MALFORMED, f"data is nested deeper than {max_depth} levels")


def depth(text: bytes, most: int) -> int:
    """How deep objects and arrays are nested in `text`, or `most` + 1 where that is deeper. What is no JSON has some number too."""
    brackets = _outside_strings(text).translate(_ONLY_SQUARE, _NO_BRACKETS)
    levels = 0
    while b"[]" in brackets and levels <= most:
        brackets = brackets.replace(b"[]", b"")  # the innermost ones
        levels += 1
    return levels


def _outside_strings(text: bytes) -> bytes:
    """`text` with nothing between its quotes, in a few passes of C code: strings are many, or long, in what attackers send."""
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return b'"'.join(text.split(b'"')[::2])


def without_lone_surrogates(text: bytes) -> bytes:
    r"""`text` with each escape of a lone surrogate replaced by `\ufffd`, of the same length."""
    if not _SURROGATE.search(text) or b"\x00" in text:
        return text
    escapes = text.replace(rb"\\", _NO_ESCAPE)  # each backslash that is left begins an escape
    return _LONE_LOW.sub(_REPLACEMENT, _LONE_HIGH.sub(_REPLACEMENT, escapes)).replace(_NO_ESCAPE, rb"\\")


def _check_keys(text: bytes, value: dict[str, Any]) -> None:
    """Each key of `text`, which was read as `value`, has its colon; so more colons than keys in `value` are keys that stand twice."""
    outside = _outside_strings(text)
    if outside.count(b":") > _count_keys(value):
        json.loads(text, object_pairs_hook=_refuse_twice)


def _count_keys(value: Any) -> int:
    """How many keys there are, at any depth. Raises Invalid(MALFORMED) for a blank one."""
    todo, count = [value], 0
    while todo:
        one = todo.pop()
        if type(one) is dict:
            count += len(one)
            if not all(map(_is_plain, one)) and _BLANK_PART.search(".".join(one)):
                _refuse_blank(one)
            one = one.values()
        todo += [inner for inner in one if inner and type(inner) in _NESTED]
    return count


def _refuse_blank(keys: Iterable[str]) -> None:
    for key in keys:
        if not all(part.strip() for part in key.split(".")):
            raise Invalid(Reason.MALFORMED, f"data has the key {key[:50]!r}: a key, and each of its parts between dots, needs a character")


def _refuse_twice(pairs: list[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise Invalid(Reason.MALFORMED, f"data has the key {key[:50]!r} twice in one object")
        seen.add(key)
