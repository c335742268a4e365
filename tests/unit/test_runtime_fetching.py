"""What is fetched is what was locked, and is there as a whole or not at all."""

import hashlib
from pathlib import Path

import pytest

from runtime import maven
from runtime.errors import RuntimeFailure
from runtime.fetching import built_as_a_whole, digest_of

GOOD = {"a.jar": b"alpha", "b.jar": b"beta"}


@pytest.fixture
def poms(tmp_path: Path) -> Path:
    folder = tmp_path / "poms" / "kafka"
    folder.mkdir(parents=True)
    (folder / "sha256.txt").write_text("".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in GOOD.items()))
    return folder


class Client:
    """Stands for the Maven client: each call delivers the next of `deliveries`."""

    def __init__(self, *deliveries: dict[str, bytes]) -> None:
        self.deliveries = list(deliveries)
        self.calls = 0

    def __call__(self, _pom_folder: Path, cache: Path, target: Path, _say: maven.Say) -> None:
        target.mkdir(parents=True, exist_ok=True)
        cache.mkdir(parents=True, exist_ok=True)
        for name, data in self.deliveries[min(self.calls, len(self.deliveries) - 1)].items():
            (target / name).write_bytes(data)
        self.calls += 1


def fetch(client: Client, poms: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maven, "_copy_dependencies", client)
    maven.fetch_jars(poms, target, lambda _: None)


def test_jars_are_fetched_once(poms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, target = Client(GOOD), tmp_path / "servers" / "kafka-jars"
    fetch(client, poms, target, monkeypatch)
    fetch(client, poms, target, monkeypatch)
    assert client.calls == 1
    assert {path.name: path.read_bytes() for path in target.glob("*.jar")} == GOOD


@pytest.mark.parametrize(
    "bad",
    [{**GOOD, "b.jar": b"bet"}, {"a.jar": b"alpha"}, {**GOOD, "c.jar": b"?"}],
    ids=["corrupted", "missing", "not locked"],
)
def test_what_differs_is_refused_and_fetched_again(
    bad: dict[str, bytes], poms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, target = Client(bad, GOOD), tmp_path / "servers" / "kafka-jars"
    fetch(client, poms, target, monkeypatch)
    assert client.calls == 2
    assert {path.name: path.read_bytes() for path in target.glob("*.jar")} == GOOD


def test_what_stays_different_is_never_used(poms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "servers" / "kafka-jars"
    with pytest.raises(RuntimeFailure, match=r"b\.jar has SHA-256"):
        fetch(Client({**GOOD, "b.jar": b"bet"}), poms, target, monkeypatch)
    assert not target.exists()


def test_a_changed_lock_is_fetched_anew(poms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "servers" / "kafka-jars"
    fetch(Client(GOOD), poms, target, monkeypatch)
    (poms / "sha256.txt").write_text(f"{hashlib.sha256(b'alpha').hexdigest()}  a.jar\n")
    fetch(Client({"a.jar": b"alpha"}), poms, target, monkeypatch)
    assert [path.name for path in target.glob("*.jar")] == ["a.jar"]


def test_a_missing_lock_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="`make lock-jars` writes it"):
        maven.read_lock(tmp_path / "sha256.txt")


def test_a_build_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with built_as_a_whole(folder, "one") as fresh:
        assert fresh is not None
        (fresh / "file").write_text("first")

    def break_off() -> None:
        with built_as_a_whole(folder, "two") as fresh:
            assert fresh is not None
            (fresh / "file").write_text("half")
            raise RuntimeFailure("broken")

    with pytest.raises(RuntimeFailure, match="broken"):
        break_off()
    assert (folder / "file").read_text() == "first"
    with built_as_a_whole(folder, "one") as fresh:
        assert fresh is None
    with built_as_a_whole(folder, "two") as fresh:
        assert fresh is not None
    assert not (folder / "file").exists()


def test_a_digest_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text("a==1")
    first = digest_of(path)
    path.write_text("a==2")
    assert digest_of(path) != first
