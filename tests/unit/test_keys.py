"""Write keys: their form, their file, their rules, and what the command says of each mistake."""

import hashlib
import json
import math
import multiprocessing
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cli.__main__ import app
from cli.context import ROOT
from headrace import keyfile, keys
from headrace.keys import KeyProblem, WriteKey

NOW = "2026-11-21T10:00:00.000Z"
RUNNER = CliRunner()


def made(**changes: Any) -> tuple[WriteKey, str]:
    return keys.make(**({"source": "shop", "made_at": NOW} | changes))


def test_a_key_has_256_random_bits_and_only_its_hash_is_kept() -> None:
    texts = set()
    for _ in range(200):
        key, text = made()
        assert re.fullmatch(r"hrk_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", text)
        assert math.log2(62) * 43 >= 256
        assert keys.id_in(text) == key.id == text[4:12]
        assert key.sha256 == hashlib.sha256(text.encode()).hexdigest()
        assert text[13:] not in repr(key)
        texts.add(text)
    assert len(texts) == 200
    assert len(set("".join(text[13:] for text in texts))) == 62


def test_a_source_has_two_active_keys_at_most() -> None:
    first, second, third, other = (made(source=source)[0] for source in ("shop", "shop", "shop", "app"))
    there = keys.with_key(keys.with_key(keys.with_key([], first), other), second)
    with pytest.raises(KeyProblem, match=f"source 'shop' has 2 active keys \\({first.id}, {second.id}\\), and 2 are allowed"):
        keys.with_key(there, third)
    revoked = keys.without_key(there, first.id, "2026-11-21T11:00:00.000Z")
    assert [key.active for key in revoked] == [False, True, True]
    assert revoked[0].revoked_at == "2026-11-21T11:00:00.000Z"
    assert [key.id for key in keys.with_key(revoked, third)] == [first.id, other.id, second.id, third.id]
    for id, sentence in (("12345678", "there is no key '12345678'"), (first.id, f"key {first.id} was revoked already")):
        with pytest.raises(KeyProblem, match=sentence):
            keys.without_key(revoked, id, NOW)


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example",
        "http://localhost:8020",
        "http://127.0.0.1:65535",
        "https://[::1]:8443",
        "https://xn--grse-1ra.example",
        "http://a",
    ],
)
def test_origins_as_browsers_send_them(origin: str) -> None:
    assert keys.check_origin(origin) == origin
    assert made(origins=[origin, origin])[0].origins == (origin,)


@pytest.mark.parametrize(
    ("origin", "says"),
    [
        ("*", "'*'"),
        ("", "write http"),
        ("null", "write http"),
        ("shop.example", "write http"),
        ("ftp://shop.example", "write http"),
        ("https://shop.example/", "write http"),
        ("https://shop.example/page", "write http"),
        ("https://Shop.example", "lower case"),
        ("https://user@shop.example", "write http"),
        ("https://*.shop.example", "write http"),
        ("https://shop.example:0", "write http"),
        ("https://shop.example:65536", "write http"),
        ("https://shop.example:", "write http"),
        ("https://shop..example", "write http"),
        ("https://-shop.example", "write http"),
        ("https://shop.example\r\nx-evil: 1", "write http"),
        ("https://shop.example\n", "write http"),
        ("https://größe.example", "write http"),
        ("https://shop.example:443", "leave it out"),
        ("http://shop.example:80", "leave it out"),
    ],
)
def test_origins_that_no_browser_sends(origin: str, says: str) -> None:
    with pytest.raises(KeyProblem, match=re.escape(says)):
        keys.check_origin(origin)


@given(st.text() | st.from_regex(r"https?://[a-z0-9.:\[\]-]{0,12}", fullmatch=True))
def test_any_origin_is_answered(origin: str) -> None:
    try:
        assert keys.check_origin(origin) == origin
    except KeyProblem:
        return
    assert not set(origin) & set("\r\n\0 ,*@")
    assert origin.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"source": ""}, "source is empty"),
        ({"source": "x" * 201}, "source has 201 characters"),
        ({"source": "a\nb"}, "source 'a\\nb' holds a character that cannot be printed"),
        ({"note": "a\x1b[2J"}, "note 'a\\x1b[2J' holds a character"),
        ({"events_per_second": -1.0}, "events per second -1.0"),
        ({"bytes_per_second": math.nan}, "bytes per second nan"),
        ({"bytes_per_second": math.inf}, "bytes per second inf"),
    ],
)
def test_what_a_key_cannot_be(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(KeyProblem, match=re.escape(says)):
        made(**changes)


# ---- the file
def test_the_file_gives_back_what_went_in(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    assert keyfile.read(path) == ([], None)
    assert keyfile.signature(path) is None
    first = made(types=["login"], origins=["http://a"], events_per_second=5.0, bytes_per_second=0.0, note="größe")[0]
    second = made()[0]
    keyfile.change(path, lambda there: keys.with_key(there, first))
    before = keyfile.signature(path)
    keyfile.change(path, lambda there: keys.with_key(there, second))
    assert keyfile.read(path) == ([first, second], keyfile.signature(path))
    assert keyfile.signature(path) != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in path.parent.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"keys":[{}]}', b'{"keys":[],"more":1}', b"\xff", b"[" * 100_000,
     b'{"keys":[{"id":"short","sha256":"00","source":"s","made_at":"x"}]}'],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_one_sentence_and_stays(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    with pytest.raises(keyfile.Unreadable, match=r"keys\.json: not a file of write keys: ") as caught:
        keyfile.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(keyfile.Unreadable):
        keyfile.change(path, lambda there: keys.with_key(there, made()[0]))
    assert path.read_bytes() == content


def test_a_change_that_fails_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keyfile.change(path, lambda there: keys.with_key(there, made()[0]))
    before = path.read_bytes()
    with pytest.raises(KeyProblem):
        keyfile.change(path, lambda there: keys.without_key(there, "nothing", NOW))
    assert path.read_bytes() == before


def _add_twenty(path: Path, source: str) -> None:
    for number in range(20):
        keyfile.change(path, lambda there, number=number: keys.with_key(there, made(source=f"{source}-{number}")[0]))  # type: ignore[misc]


def test_two_writers_lose_nothing_and_a_reader_never_meets_half(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_add_twenty, args=(path, name)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    seen = 0
    while any(writer.is_alive() for writer in writers):
        count = len(keyfile.read(path)[0])
        assert count >= seen
        seen = count
    for writer in writers:
        writer.join()
    assert {key.source for key in keyfile.read(path)[0]} == {f"{name}-{number}" for name in "ab" for number in range(20)}


# ---- the command
@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    env = tmp_path / ".env"
    env.write_text(f"COLLECTOR_KEYS_FILE={tmp_path}/state/keys.json\nSCHEMAS_DIR={ROOT}/schemas\n")
    monkeypatch.setenv("HEADRACE_ENV_FILE", str(env))
    return tmp_path / "state" / "keys.json"


def run(*arguments: str) -> tuple[int, str, str]:
    result = RUNNER.invoke(app, ["keys", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_make_list_revoke(file: Path) -> None:
    assert run("list")[1].startswith(f"no keys in {file}")
    bound = ["--types", "login, Order Completed,login", "--origins", "https://shop.example", "--note", "[red]the shop"]
    code, text, said = run("make", "--source", "shop", *bound, "--events-per-second", "1000", "--bytes-per-second", "0")
    assert (code, text[:4], len(text)) == (0, "hrk_", 57)
    text = text.strip()
    (key,) = keyfile.read(file)[0]
    assert key.id in said
    assert text not in said
    assert (key.source, key.types, key.origins) == ("shop", ("login", "purchase"), ("https://shop.example",))
    assert (key.events_per_second, key.bytes_per_second, key.note) == (1000, 0, "[red]the shop")
    assert text[13:] not in file.read_text()
    run("make", "--source", "shop")
    code, table, _ = run("list")
    assert text[13:] not in table
    assert key.sha256 not in table
    (row,) = [line for line in table.splitlines() if line.startswith(key.id)]
    cells = re.split(r"\s{2,}", row.strip())
    assert cells == [key.id, "shop", "active", "login, purchase", "1,000", "no limit", "https://shop.example", key.made_at, "[red]the shop"]
    assert "all" in table.splitlines()[2]
    assert "default  default" in re.sub(r"\s{2,}", "  ", table.splitlines()[2])
    code, _, said = run("make", "--source", "shop")
    assert code == 1
    assert said.startswith("headrace: source 'shop' has 2 active keys (")
    assert run("revoke", key.id)[:2] == (0, f"key {key.id} is revoked\n")
    assert f"revoked {keyfile.read(file)[0][0].revoked_at}" in run("list")[1]
    assert run("revoke", key.id)[0] == 1
    assert run("make", "--source", "shop")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["make", "--source", "s", "--types", "login,nothing"], "--types nothing: not in the tracking plan; known: page_view, "),
        (["make", "--source", "s", "--origins", "*"], "origin '*': pages send with credentials"),
        (["make", "--source", "s", "--origins", "http://a/b"], "origin 'http://a/b': write http(s)://host[:port]"),
        (["make", "--source", ""], "source is empty"),
        (["make", "--source", "s", "--events-per-second", "nan"], "events per second nan"),
        (["revoke", "nothing"], "there is no key 'nothing': `headrace keys list`"),
    ],
)
def test_each_mistake_is_one_line(file: Path, arguments: list[str], says: str) -> None:
    code, printed, said = run(*arguments)
    assert (code, printed) == (1, "")
    assert said.startswith(f"headrace: {says}")
    assert said.count("\n") == 1
    assert not file.exists() or json.loads(file.read_bytes()) == {"keys": []}


def test_a_folder_that_cannot_be_written_is_one_line(file: Path) -> None:
    file.parent.write_text("not a folder")
    code, _, said = run("make", "--source", "s")
    assert code == 1
    assert re.fullmatch(r"headrace: .*keys\.json: .* \(setting COLLECTOR_KEYS_FILE\)\n", said)
