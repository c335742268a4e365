"""The `headrace` command without a platform: what it says of schemas, and one clear line wherever it cannot do its work."""

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli import context, examples, schemas
from cli.__main__ import app
from cli.doctor import CORE, FULL
from cli.events import _line
from cli.sql import split, statements
from headrace import dead_letter, event
from headrace.dead_letter import DeadLetter, Reason
from headrace.event import EnrichedEvent, RawEvent, Receipt

ROOT = Path(__file__).parents[2]
RUNNER = CliRunner()


# ---- schemas check
@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / "schemas", tmp_path / "schemas"))


def move(old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "examples" / old).rename(folder / "examples" / new)


def example(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "examples" / name).write_text(text)


def test_the_schemas_are_in_order() -> None:
    result = RUNNER.invoke(app, ["schemas", "check"])
    assert result.exit_code == 0
    registry = schemas.problems(ROOT / "schemas")[1]
    assert registry is not None
    count = len(list((ROOT / "schemas" / "examples").glob("*/*.json")))
    assert result.stdout == f"OK: {len(registry.types)} event types, {len(registry.schemas)} schemas, {count} examples\n"


LOGIN = "login/1-0-0.password.pass.json"


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (move(LOGIN, "login/1-0-0.password.fail.json"), "1-0-0.password.fail.json: must fail, but it is valid by login/1-0-0"),
        (move(LOGIN, "login/1-0-0.password.ok.json"), "name it <version>.<name>.pass.json or <version>.<name>.fail.json"),
        (move(LOGIN, "login/2-0-0.password.pass.json"), "there is no schema login/2-0-0.json: rename the example or remove it"),
        (lambda folder: (folder / "examples" / LOGIN).unlink(), "login/1-0-0.<name>.pass.json: there is none: write an example"),
        (example(LOGIN, '{"method": "fax"}'), '1-0-0.password.pass.json: must pass, but data/method: "fax" is not one of '),
        (example(LOGIN, "{"), "1-0-0.password.pass.json: not JSON: "),
        (lambda folder: (folder / "login" / "1-0-0.proto").write_text("message"), "login/1-0-0.proto:1:8: Expected message name."),
        (lambda folder: (folder / "purchase" / "2-0-0.proto").write_text(""), "2-0-0.proto: there is no 2-0-0.json beside it"),
        (lambda folder: (folder / "login" / "1-0-0.json").write_text("{"), "login/1-0-0.json: not JSON: "),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(folder: Path, mistake: Callable[[Path], object], sentence: str) -> None:
    mistake(folder)
    result = RUNNER.invoke(app, ["schemas", "check", "--schemas", str(folder)])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert [line for line in lines if sentence in line], lines
    assert all(str(folder) in line for line in lines)


def test_disagreement_is_told(folder: Path) -> None:
    schema = json.loads((folder / "login" / "1-0-0.json").read_text())
    schema["properties"]["at"] = {"type": "string", "format": "email"}
    (folder / "login" / "1-0-0.json").write_text(json.dumps(schema))
    example("login/1-0-0.mail.fail.json", '{"method": "password", "at": "nobody"}')(folder)
    problems, _ = schemas.problems(folder)
    assert len(problems) == 1
    assert "the two validators disagree: jsonschema-rs says data/at: " in problems[0]


DATES = st.datetimes().map(lambda moment: moment.isoformat())
PIECES = st.tuples(DATES, st.sampled_from(["", "Z", "z", "+01:00", "-23:59", "+24:00", "+1:00", "Zx", ".5Z", ".Z", "+00:60"])).map("".join)
EDGES = [
    "2016-12-31T23:59:60Z",
    "2016-12-31T23:58:60Z",
    "2017-01-01T00:59:60+01:00",
    "0000-02-29T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-01-01T24:00:00Z",
]


@given(PIECES | st.sampled_from(EDGES) | st.text() | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"))
def test_date_time_as_the_platform_reads_it(text: str) -> None:
    validator = jsonschema_rs.Draft202012Validator({"format": "date-time"}, validate_formats=True)
    assert examples.is_date_time(text) == validator.is_valid(text)


# ---- what a line of `events tail` shows
RECEIPT = Receipt(collector_id="c", protocol="segment")
ATTRIBUTES = {"id": "e1", "source": "s", "type": "purchase", "time": "2026-01-31T12:00:00Z", "received_at": "2026-01-31T12:00:01Z"}


def test_lines() -> None:
    raw = RawEvent(**ATTRIBUTES, dataschema="purchase/1-0-0", data=msgspec.Raw(b'{"a":1}'), receipt=RECEIPT, subject="c7")
    of, line = _line(event.RAW_TOPIC, event.encode(raw))
    assert of == "purchase"
    assert line.plain.split()[1:] == ["purchase", "c7", "e1", '{"a":1}']
    enriched = EnrichedEvent(
        **ATTRIBUTES, dataschema="", data=msgspec.Raw(b"{}"), receipt=RECEIPT, enriched_at="", enrichment=msgspec.Raw(b'{"score":1}')
    )
    assert _line(event.ENRICHED_TOPIC, event.encode(enriched))[1].plain.split()[1:] == ["purchase", "-", "e1", "{}", '{"score":1}']
    letter = DeadLetter(
        dead_letter_id="d", service="enricher", reason=Reason.SCHEMA_INVALID, detail="data: [no] tags", rejected_at="soon", payload=""
    )
    of, line = _line("dead-letter.enricher", dead_letter.encode(letter))
    assert of is None
    assert line.plain.split() == ["soon", "?", "schema_invalid", "?", "data:", "[no]", "tags"]


# ---- without a platform
@pytest.fixture
def nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of a platform whose every port is closed."""
    text = (ROOT / ".env.example").read_text()
    lines = []
    for line in text.splitlines():
        name, sep, value = line.partition("=")
        if sep and name.endswith("_PORT"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                value = str(free.getsockname()[1])
        lines.append(f"{name}{sep}{value}")
    path = tmp_path / ".env"
    path.write_text("\n".join(lines))
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(path))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["events", "send", "page_view"], "headrace: collector not reachable at http://127.0.0.1:"),
        (["events", "send", "page_view", "--data", "{"], "headrace: --data: not JSON: "),
        (["events", "send", "page_view", "--data", "@/nowhere"], "headrace: --data @/nowhere: No such file or directory"),
        (["events", "tail"], "headrace: Kafka not reachable at 127.0.0.1:"),
        (["events", "tail", "--topic", "nope"], "headrace: --topic nope: use one of events.raw, events.enriched, "),
        (["topics"], "headrace: Kafka not reachable at 127.0.0.1:"),
        (["sql", "/* nothing */"], "headrace: there is no statement"),
        (["sql", "--file", "/nowhere.sql"], "headrace: cannot read /nowhere.sql: "),
        (["sql", "select 1"], "headrace: Trino not reachable at http://127.0.0.1:"),
    ],
)
@pytest.mark.usefixtures("nothing_runs")
def test_what_cannot_be_done_is_one_line(arguments: list[str], sentence: str) -> None:
    done = subprocess.run([ROOT / "bin" / "headrace", *arguments], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("nothing_runs")
def test_doctor_names_everything_that_is_down() -> None:
    result = RUNNER.invoke(app, ["doctor"])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["ok", "tracking", "plan"]
    down = [*CORE, *FULL][1:]
    assert len(down) == 13
    for line, name in zip(lines[1:], down, strict=True):
        assert line.startswith(f"ill  {name} ")
        assert "`make up` starts it" in line


def test_no_settings_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(tmp_path / "none"))
    result = RUNNER.invoke(app, ["topics"])
    assert result.exit_code == 1
    assert "`make up` writes it at the first start" in str(result.output) + str(result.exception)


def test_a_container_has_its_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ENV_FILE", "")
    monkeypatch.setenv("AIRFLOW_URL", "http://airflow-api-server:8080")
    monkeypatch.delenv("TRINO_URL", raising=False)
    assert context.settings()["AIRFLOW_URL"] == "http://airflow-api-server:8080"
    with pytest.raises(SystemExit, match=r"no setting TRINO_URL in the environment: compare it with \.env\.example"):
        context.settings()["TRINO_URL"]


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("TRINO_USER=x\n")
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(path))
    done = subprocess.run([ROOT / "bin" / "headrace", "topics"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"headrace: no setting KAFKA_BOOTSTRAP_SERVERS in {path}: compare it with .env.example\n"


@pytest.mark.parametrize(
    ("text", "found", "rest"),
    [
        ("select 1", [], "select 1"),
        ("select 1; select 2 ;", ["select 1", "select 2"], ""),
        ("select ';', \";\", '' -- ;\n, 'it''s;' /* ; */ from t;", ["select ';', \";\", '' -- ;\n, 'it''s;' /* ; */ from t"], ""),
        ("-- first\nselect 1; -- last\n", ["-- first\nselect 1"], ""),
        ("select 'open; select 2;", [], "select 'open; select 2;"),
        ("select 1 /* open; ", [], "select 1 /* open;"),
        ("select 4/2-1;;", ["select 4/2-1"], ""),
        (" ; \n", [], ""),
    ],
)
def test_statements_end_with_semicolons_that_are_not_in_quotes_or_comments(text: str, found: list[str], rest: str) -> None:
    assert split(text) == (found, rest)
    assert statements(text) == ([*found, rest] if rest else found)
