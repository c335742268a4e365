"""Whoever chooses what stands in a log entry cannot make it look like two, or like another."""

import json
import subprocess
import sys

import pytest

EVIL = "a\r\n2026-01-01 [info] all is well\x1b[2J\x00\x85\u2028\x9b31m\u202eb"
PROGRAM = """
import structlog, sys
from headrace.observability import set_up_logging
set_up_logging("collector", "info", sys.argv[1])
evil = sys.argv[2].encode().decode("unicode_escape")
log = structlog.get_logger()
log.info("one", path=evil, many=[evil], raw=evil.encode(), count=3)
log.error(evil)
try:
    raise ValueError(evil)
except ValueError:
    log.exception("two", path=evil)
"""


def lines(form: str) -> list[str]:
    told = EVIL.encode("unicode_escape").decode()
    run = subprocess.run([sys.executable, "-c", PROGRAM, form, told], capture_output=True, check=True)
    return run.stderr.decode().removesuffix("\n").split("\n")


def test_json() -> None:
    one, other, two = (json.loads(line) for line in lines("json"))
    assert (one["event"], one["path"], one["many"], one["count"]) == ("one", EVIL, [EVIL], 3)
    assert other["event"] == EVIL
    assert two["exception"].endswith(f"ValueError: {EVIL}")
    assert all(line.isascii() and line.isprintable() for line in lines("json"))


def test_console() -> None:
    said = [line.replace("\x1b[0m", "").replace("\x1b[1m", "") for line in lines("console")]
    starts = [line for line in said if not line.startswith(" ")]
    assert len([line for line in starts if line]) == 3, "three entries, and tracebacks are indented"
    assert "count=3" in starts[0].replace("\x1b[36m", "").replace("\x1b[35m", "")
    coloured = "".join(said).replace("\x1b[", "")
    for evil in "\r\x00\x85\u2028\x9b\u202e\x1b":
        assert evil not in coloured
    assert r"a\r\n2026-01-01 [info] all is well\x1b[2J\x00\x85\u2028\x9b31m\u202eb" in "".join(said)


@pytest.mark.parametrize("form", ["json", "console"])
def test_ordinary_text_is_untouched(form: str) -> None:
    program = (
        f"from headrace.observability import set_up_logging as s; import structlog; s('c', 'info', '{form}'); "
        "structlog.get_logger().info('größe 🚀', a='é b')"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stderr.decode()
    assert ("größe 🚀" in said) if form == "console" else (json.loads(said)["event"] == "größe 🚀")
