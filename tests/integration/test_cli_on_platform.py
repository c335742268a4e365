"""The `headrace` command against the running platform."""

import json
import os
import pty
import re
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("platform")

HEADRACE = Path(__file__).parents[2] / "bin" / "headrace"


def headrace(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([HEADRACE, *arguments], input=input, capture_output=True, text=True, check=False, timeout=120)


def send(id: str, **data: object) -> subprocess.CompletedProcess[str]:
    return headrace("events", "send", "button_click", "--id", id, "--source", "cli-test", "--subject", "c7", "--data", json.dumps(data))


def test_an_event_is_sent_and_seen() -> None:
    id = f"cli-{uuid.uuid4()}"
    # The tail has begun to follow when the first event shows; so we send until then.
    tail = subprocess.Popen(
        [HEADRACE, "events", "tail", "--topic", "events.raw", "--type", "button_click", "--count", "1", "--json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    sent = []
    for number in range(60):
        done = send(f"{id}-{number}", button_id="buy")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"accepted": 1, "rejected": []}
        assert done.stderr == f"id {id}-{number}, source cli-test\n"
        sent.append(f"{id}-{number}")
        if tail.poll() is not None:
            break
    shown, _ = tail.communicate(timeout=30)
    assert tail.returncode == 0
    event = json.loads(shown)
    assert event["type"] == "button_click"
    if event["source"] == "cli-test" and event["id"] in sent:
        assert event["data"] == {"button_id": "buy"}
        assert event["subject"] == "c7"


def test_a_refused_event_says_why() -> None:
    done = headrace("events", "send", "no_such_type", "--id", "x1")
    assert done.returncode == 1
    (rejected,) = json.loads(done.stdout)["rejected"]
    assert (rejected["id"], rejected["reason"]) == ("x1", "unknown_type")


def test_topics_counts_dead_letters_by_reason() -> None:
    headrace("events", "send", "no_such_type")
    done = headrace("topics")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[1:]}
    assert set(rows) == {"events.raw", "events.enriched", "dead-letter.collector", "dead-letter.enricher", "dead-letter.loader"}
    assert "unknown_type" in rows["dead-letter.collector"]


def test_doctor_finds_the_platform_well() -> None:
    done = headrace("doctor")
    assert [line for line in done.stdout.splitlines() if not line.startswith("ok ")] == []
    assert done.returncode == 0


@pytest.fixture
def trino() -> None:
    if os.environ["PROFILE"] != "full":
        pytest.fail("this platform has no Trino (PROFILE=core): `make test` starts one with it", pytrace=False)


@pytest.mark.usefixtures("trino")
def test_sql() -> None:
    done = headrace("sql", "select * from (values (1, 'a,b', null), (2, 'c', 2.5)) as t (number, text, ratio) order by number;", "--csv")
    assert (done.returncode, done.stdout) == (0, 'number,text,ratio\n1,"a,b",\n2,c,2.5\n')
    done = headrace("sql", "select count(*) as events from lake.bronze.events")
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()][0::2] == ["events", "1 row"]


@pytest.mark.usefixtures("trino")
def test_a_wrong_statement_is_one_line() -> None:
    done = headrace("sql", "select * from lake.nowhere.nothing")
    assert done.returncode == 1
    assert done.stderr == "headrace: Trino: line 1:15: Schema 'nowhere' does not exist\n"


@pytest.mark.usefixtures("trino")
def test_sql_of_files_and_pipes(tmp_path: Path) -> None:
    file = tmp_path / "two.sql"
    file.write_text("select 1 as a; -- and\nselect ';' as b")
    done = headrace("sql", "--csv", "-f", str(file), "-f", str(file))
    assert (done.returncode, done.stdout) == (0, "a\n1\nb\n;\n" * 2)
    done = headrace("sql", "--csv", input="select 2 as c;")
    assert (done.returncode, done.stdout) == (0, "c\n2\n")
    file.write_text("select 1 as a; select nothing; select 3 as c")
    done = headrace("sql", "--csv", "-f", str(file))
    assert (done.returncode, done.stdout) == (1, "a\n1\n")
    assert done.stderr == "headrace: Trino: line 1:8: Column 'nothing' cannot be resolved (in: select nothing)\n"


@pytest.mark.usefixtures("trino")
def test_the_prompt_of_sql() -> None:
    """In a terminal: statements over several lines, a mistake that ends nothing, a half-typed one given up by Ctrl-C, the end by Ctrl-D."""
    process, terminal = pty.fork()
    if process == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background has it ignored by all that it starts
        os.execv(HEADRACE, [str(HEADRACE), "sql"])  # noqa: S606
    shown = b""
    typed = [
        b"select 40 +\n",
        b"2 as answer; select nope;\n",
        b"select 'given\n",
        b"\x03",
        b"select 'still ' || 'here' as said;\n",
        b"\x04",
    ]
    answered = 0  # a prompt is answered once: what was typed is echoed in pieces, after it
    with suppress(OSError):  # how a terminal says that the other side is gone
        while piece := os.read(terminal, 65536):
            shown += piece
            if typed and re.search(rb"(headrace> |       -> )(\x1b\[[0-9;?]*[a-zA-Z])*$", shown[answered:]):
                answered = len(shown)
                while Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] == "R":
                    time.sleep(0.01)  # a Ctrl-C between the prompt and the wait for a key is seen by CPython with the next key only
                os.write(terminal, typed.pop(0))
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    text = shown.decode()
    assert re.search(r"answer\S*\s+42\s", text), text
    assert "Column 'nope' cannot be resolved" in text
    assert "still here" in text
