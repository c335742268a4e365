"""Each row of docs/decisions/0002, in native code and in Python, for one event, in a batch of either form, and in binary form."""

import json
from pathlib import Path

import pytest

from collector import cloudevents, segment
from collector.accept import Limits, Outcome, Sending, accept
from collector.fast import Fast, judge_batch, judge_one
from headrace import event
from headrace.dead_letter import Invalid, Reason
from headrace.registry import Registry

REGISTRY = Registry.load(Path(__file__).parents[2] / "schemas")
LIMITS = Limits()
SENDING = Sending(event.Receipt(collector_id="c1", protocol="cloudevents", key_id="k"), "2026-11-21T10:00:00.000Z", REGISTRY, LIMITS)
SEGMENT = segment.form("s", REGISTRY)
FAST = {"python": None, "native": Fast(REGISTRY, LIMITS)}

BODY = "the body"  # is refused as a whole
NESTED = {depth: b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}" for depth in (32, 33, 500)}

RULES: dict[str, tuple[bytes, Reason | str | None]] = {
    "a key twice": (b'{"a":1,"a":1}', Reason.MALFORMED),
    "a key twice, deep": (b'{"x":[[{"b":{"a":1,"c":2,"a":1}}]]}', Reason.MALFORMED),
    "a key twice, by an escape": (rb'{"\u0061b":1,"ab":1}', Reason.MALFORMED),
    "a key twice, by escapes of one surrogate pair": ('{"\\ud83d\\ude80":1,"🚀":1}'.encode(), Reason.MALFORMED),
    "a key twice among many": (b'{"zz":0,' + b",".join(b'"k%d":0' % n for n in range(200)) + b',"zz":1}', Reason.MALFORMED),
    "an odd key twice": (b'{"a b":1,"c":{"a b":1},"a b":2}', Reason.MALFORMED),
    "a key in two objects": (b'{"a":{"a":1},"b":{"a":1},"c":[{"a":1},{"a":1}]}', None),
    "colons and quotes in strings": (rb'{"a":"b\":","c":"\\","d":"\\\":\\","e f":":"}', None),
    "an empty key": (b'{"":1}', Reason.MALFORMED),
    "an empty key, deep": (b'{"a":[{"b":{"":1}}]}', Reason.MALFORMED),
    "a blank key": (b'{" ":1}', Reason.MALFORMED),
    "a key of an odd white space": ('{"\u2003\u00a0":1}'.encode(), Reason.MALFORMED),
    "a key of white space, by escape": (rb'{"\u0020\t":1}', Reason.MALFORMED),
    "a dot": (b'{".":1}', Reason.MALFORMED),
    "a dot first": (b'{".a":1}', Reason.MALFORMED),
    "a dot last": (b'{"a.":1}', Reason.MALFORMED),
    "nothing between dots": (b'{"a..b":1}', Reason.MALFORMED),
    "a blank between dots": (b'{"a. .b":1}', Reason.MALFORMED),
    "keys with dots and blanks": (b'{"a.b":1," a":2,"b ":3,"a b.c":4}', None),
    "keys that are blank only beside each other": (b'{"a ":1," b":2,"c":{" d":1}}', None),
    "a key of NUL": (rb'{"\u0000":1}', None),
    "as deep as allowed": (NESTED[32], None),
    "deeper": (NESTED[33], Reason.MALFORMED),
    "much deeper": (NESTED[500], Reason.MALFORMED),
    "brackets in a string": (b'{"a":"' + b"[{" * 100 + b'","b":[' + b"[]," * 100 + b"[]]}", None),
    "bytes that are no UTF-8": (b'{"a":"\xff"}', Reason.UNPARSEABLE),
    "half a character": (b'{"a":"\xc3"}', Reason.UNPARSEABLE),
    "an overlong form": (b'{"a":"\xc0\x80"}', Reason.UNPARSEABLE),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', Reason.UNPARSEABLE),
    "a key that is no UTF-8": (b'{"\xff":1}', Reason.UNPARSEABLE),
    "a lone high surrogate": (rb'{"a":"\ud83d"}', Reason.UNPARSEABLE),
    "a lone low surrogate": (rb'{"a":"\uDE80x"}', Reason.UNPARSEABLE),
    "surrogates the wrong way round": (rb'{"a":"\ude80\ud83d"}', Reason.UNPARSEABLE),
    "a lone surrogate in a key": (rb'{"\ud83d":1}', Reason.UNPARSEABLE),
    "a pair of surrogates": (rb'{"a":"\ud83d\ude80"}', None),
    "what only looks like a surrogate": (rb'{"a":"\\ud83d"}', None),
    "NaN": (b'{"a":NaN}', BODY),
    "Infinity": (b'{"a":Infinity}', BODY),
    "-Infinity": (b'{"a":[-Infinity]}', BODY),
    "a comment": (b'{"a":1/* */}', BODY),
    "a trailing comma": (b'{"a":1,}', BODY),
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', BODY),
    "single quotes": (b"{'a':1}", BODY),
    "a line break in a string": (b'{"a":"\n"}', BODY),
    "a raw NUL": (b'{"a":"\x00"}', BODY),
    "a leading zero": (b'{"a":01}', BODY),
    "a number beyond a double": (b'{"a":1e999}', Reason.UNPARSEABLE),
    "400 digits": (b'{"a":' + b"1" * 400 + b"}", Reason.UNPARSEABLE),
    "20,000 digits": (b'{"a":-' + b"1" * 20_000 + b"}", Reason.UNPARSEABLE),
    "300 digits": (b'{"a":' + b"1" * 300 + b"}", None),
    "20,000 decimals": (b'{"a":0.' + b"1" * 20_000 + b"}", None),
    "next to nothing": (b'{"a":1e-999,"b":-0,"c":-0.0}', None),
    "beyond 64 bits": (b'{"a":[18446744073709551616,-9223372036854775809,9223372036854775808]}', None),
    "NUL": (rb'{"a":"\u0000","b":["x\u0000y"]}', None),
    "control characters": (rb'{"a":"\u0001\u001f\u007f\u0085\u2028"}', None),
}


@pytest.mark.parametrize("implementation", FAST)
@pytest.mark.parametrize("rule", RULES)
def test_data(rule: str, implementation: str) -> None:
    data, expected = RULES[rule]
    fast = FAST[implementation]
    one = b'{"id":"e","source":"s","type":"login","subject":"u","data":%b}' % data
    call = b'{"type":"track","event":"login","messageId":"e","userId":"u","properties":%b}' % data
    good = b'{"id":"g","source":"s","type":"login","subject":"u","data":{}}'
    good_call = b'{"type":"track","event":"login","messageId":"g","userId":"u"}'

    def found(outcome: Outcome, beside: int) -> Reason | str | None:
        assert len(outcome.messages) + len(outcome.rejected) == 1 + beside
        assert [key for key, _ in outcome.messages].count(b"s\x1fg") == beside
        if outcome.rejected:
            (rejection,) = outcome.rejected
            return rejection.letter.reason
        assert bytes(event.decode_raw(outcome.messages[0][1]).data) == data
        return None

    def judged(judge: object) -> Reason | str | None:
        try:
            return judge()  # type: ignore[operator, no-any-return]
        except Invalid:
            return BODY

    assert judged(lambda: found(judge_batch(b"[%b,%b]" % (one, good), cloudevents.FORM, SENDING, fast), 1)) == expected
    assert judged(lambda: found(judge_batch(b'{"batch":[%b,%b]}' % (call, good_call), SEGMENT, SENDING, fast), 1)) == expected
    alone = judged(lambda: found(judge_one(one, cloudevents.FORM, SENDING, fast), 0))
    assert alone == expected or (alone, expected) == (BODY, Reason.UNPARSEABLE), "of one event, what cannot be read is the body"
    headers = {"ce-id": "e", "ce-source": "s", "ce-type": "login", "ce-subject": "u"}
    binary = judged(lambda: found(accept(*cloudevents.read_binary(data, headers, LIMITS), SENDING), 0))
    assert binary == expected or (binary, expected) == (BODY, Reason.UNPARSEABLE)


@pytest.mark.parametrize("implementation", FAST)
def test_attributes(implementation: str) -> None:
    def rejected(**changes: str) -> str | None:
        sent = {"id": "e", "source": "s", "type": "login", "subject": "u", "data": {}} | changes
        outcome = judge_batch(json.dumps([sent]).encode(), cloudevents.FORM, SENDING, FAST[implementation])
        return outcome.rejected[0].letter.reason if outcome.rejected else None

    for name in ("id", "source", "subject"):
        for control in "\x00\x01\n\r\x1b\x1f\x7f\x80\x85\x9f":
            assert rejected(**{name: f"a{control}b"}) == Reason.INVALID_ATTRIBUTE
        for fine in "\u00a0\u2028🚀\u202e\ufffe":
            assert rejected(**{name: f"a{fine}b"}) is None
    twice = b'[{"id":"x","source":"s","type":"nothing","subject":"u","data":{"a":1},"id":"e","type":"login","data":{"b":2}}]'
    ((key, value),) = judge_batch(twice, cloudevents.FORM, SENDING, FAST[implementation]).messages
    assert key == b"s\x1fe"
    assert bytes(event.decode_raw(value).data) == b'{"b":2}', "the last one counts"
