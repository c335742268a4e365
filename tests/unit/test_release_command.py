"""What `headrace models release` makes of a release file: the entry of one model, and nothing else."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli.models.release_file import Strategy, edited, releases_in, wanted
from cli.models.releasing import NotReleased, Releases, card_of
from enrichment_api.model import read_card
from enrichment_api.release import Release, ReleaseError, parse
from headrace.features import FEATURES
from ml.registry import Registry, Version
from tests import models

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
RECREATE = {"strategy": "recreate", "champion": "v1"}


def release_of(entry: dict[str, Any]) -> Release:
    return parse(yaml.safe_dump({"repurchase": entry}).encode())["repurchase"]


PRESENT: dict[str, dict[str, Any]] = {
    "recreate": RECREATE,
    "canary": {"strategy": "canary", "champion": "v1", "challenger": "v2", "share": 0.1, "bounds": {"p99_ms": 70.0}},
    "ab": {"strategy": "ab", "champion": "v1", "challengers": {"b": {"model": "v2", "share": 0.2}}},
    "green": {"strategy": "blue_green", "blue": "v2", "green": "v1", "live": "green"},
    "rolled": {"strategy": "rolling", "champion": "v0", "challenger": "v1", "starts_at": NOW - timedelta(hours=1), "seconds": 60},
    "rolling": {"strategy": "rolling", "champion": "v1", "challenger": "v2", "starts_at": NOW, "seconds": 60},
}


@pytest.mark.parametrize("present", PRESENT)
@pytest.mark.parametrize(
    ("strategy", "given", "expected"),
    [
        ("recreate", {}, {"champion": "v3"}),
        ("canary", {"share": 0.05, "name": "try"}, {"champion": "v1", "challenger": "v3", "share": 0.05, "name": "try"}),
        ("shadow", {}, {"champion": "v1", "challenger": "v3"}),
        ("rolling", {"seconds": 60.0}, {"champion": "v1", "challenger": "v3", "seconds": 60.0, "starts_at": NOW}),
    ],
)
def test_a_version_is_released_beside_who_serves(present: str, strategy: Strategy, given: dict[str, Any], expected: dict[str, Any]) -> None:
    entry = wanted(release_of(PRESENT[present]), "v3", strategy, NOW, given)
    kept = {"bounds": entry["bounds"]} if present == "canary" and strategy in ("canary", "rolling") else {}
    assert entry == {"strategy": strategy, **expected, **kept}
    assert not kept or entry["bounds"]["p99_ms"] == 70.0
    assert set(release_of(entry).folders().values()) <= {"v1", "v3"}


def test_several_are_tried_at_a_time() -> None:
    entry = wanted(release_of(PRESENT["ab"]), "v3", "ab", NOW, {"variant": "c", "share": 0.3})
    assert entry["challengers"] == {"b": {"model": "v2", "share": 0.2}, "c": {"model": "v3", "share": 0.3}}
    assert wanted(release_of(RECREATE), "v3", "ab", NOW, {"share": 0.3})["challengers"] == {"challenger": {"model": "v3", "share": 0.3}}


def test_a_colour_is_warmed_then_lives() -> None:
    warm = wanted(release_of(RECREATE), "v3", "blue_green", NOW, {"live": None})
    assert warm == {"strategy": "blue_green", "blue": "v1", "green": "v3", "live": "blue"}
    assert wanted(release_of(warm), "v3", "blue_green", NOW, {"live": True}) == {**warm, "live": "green"}
    over = wanted(release_of({**warm, "live": "green"}), "v4", "blue_green", NOW, {"live": True})
    assert over == {"strategy": "blue_green", "blue": "v4", "green": "v3", "live": "blue"}


@pytest.mark.parametrize(
    ("strategy", "given", "said"),
    [
        ("recreate", {"share": 0.1}, "unknown field `share`"),
        ("canary", {}, "missing required field `share`"),
        ("canary", {"share": 1.5}, "`float` <= 1"),
        ("rolling", {}, "missing required field `seconds`"),
        ("rolling", {"seconds": 60.0, "starts_at": "2026-11-22T12:00:00"}, "timezone"),
        ("shadow", {"live": True}, "unknown field `live`"),
        ("ab", {"share": 0.5, "variant": "champion"}, "a challenger cannot be called 'champion'"),
    ],
)
def test_what_the_api_would_refuse_is_refused(strategy: Strategy, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ReleaseError, match=said.replace("(", r"\(")):
        edited(b"", "repurchase", wanted(release_of(RECREATE), "v3", strategy, NOW, given))


def test_a_version_is_not_its_own_challenger() -> None:
    with pytest.raises(ReleaseError, match="v1 is the champion already"):
        wanted(release_of(RECREATE), "v1", "canary", NOW, {"share": 0.1})


ENTRY = {"strategy": "recreate", "champion": "v9"}
NEW = "repurchase:\n  strategy: recreate\n  champion: v9\n"
OTHER = "other:  # theirs\n  strategy: recreate  # for now\n  champion: x\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", NEW),
        ("# nothing yet\n", "# nothing yet\n" + NEW),
        ("{}\n", NEW),
        (OTHER, OTHER + NEW),
        (OTHER.rstrip("\n"), OTHER + NEW),
        ("repurchase: {strategy: recreate, champion: a}  # old\n" + OTHER, NEW + OTHER),
        (
            "# top\n" + OTHER + "# ours\nrepurchase:\n  # a\n  strategy: recreate\n  champion: a\n\n# end\n",
            "# top\n" + OTHER + "# ours\n" + NEW + "\n# end\n",
        ),
        ("repurchase:\n  strategy: recreate\n  champion: a\n# theirs\n" + OTHER, NEW + "# theirs\n" + OTHER),
    ],
)
def test_other_entries_and_comments_stay(before: str, after: str) -> None:
    assert edited(before.encode(), "repurchase", ENTRY).decode() == after


def test_an_entry_is_taken_out() -> None:
    assert edited((NEW + OTHER).encode(), "repurchase", None).decode() == OTHER
    alone = edited(("# top\n" + NEW).encode(), "repurchase", None)
    assert releases_in(alone) == {}
    assert edited(alone, "repurchase", ENTRY).decode() == "# top\n" + NEW


def test_what_cannot_be_kept_apart_is_refused() -> None:
    one_line = b"{repurchase: {strategy: recreate, champion: a}, other: {strategy: recreate, champion: b}}\n"
    with pytest.raises(ReleaseError):
        edited(one_line, "repurchase", ENTRY)
    shared = b"repurchase: &same\n  strategy: recreate\n  champion: a\nother: *same\n"
    with pytest.raises(ReleaseError):
        edited(shared, "repurchase", ENTRY)


models_named = st.lists(st.sampled_from(["a", "b", "repurchase", "z"]), unique=True)
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20)


@given(models_named, st.lists(words, min_size=5, max_size=5), st.sampled_from(sorted(PRESENT)))
def test_whatever_stands_there_stays(names: list[str], comments: list[str], present: str) -> None:
    parts = [yaml.safe_dump({name: PRESENT[present]}) for name in names]
    text = "".join(f"# {comment}\n{part}" for comment, part in zip(comments, parts, strict=False)) + f"# {comments[-1]}\n"
    fresh = edited(text.encode(), "repurchase", ENTRY)
    expected = {**releases_in(text.encode() if names else b""), "repurchase": release_of(ENTRY)}
    assert parse(fresh) == expected
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in fresh.decode().splitlines() if line.startswith("#")
    ]


class _Files(Registry):
    """Files of a version, without a server: who asks and how is tested on the real one (tests/integration/test_models_life.py)."""

    def __init__(self, onnx: bytes, card: dict[str, Any]) -> None:
        self._files = {"model.onnx": onnx, "extra_files/card.json": json.dumps(card).encode()}

    def file(self, version: Version, path: str) -> bytes:  # noqa: ARG002
        return self._files[path]


def registered(onnx: bytes, **changes: Any) -> tuple[Registry, Version]:
    from hashlib import sha256

    digest = sha256(onnx).hexdigest()
    report = {"overall": {"rows": 10, "positives": 5, "auc": 0.71234, "log_loss": 0.5, "calibration_error": 0.01}, "segments": {}}
    card = {
        "model": "repurchase",
        "horizon_days": 90.0,
        "features": list(FEATURES),
        "onnx_sha256": digest,
        "data_snapshot": "sha256:1",
        "rows": {"fit": 100, "judge": 10},
        "learnt_until": "1997-10-03T00:00:00.000000",
        "judged_from": "1998-01-01T00:00:00.000000",
        "judged_until": "1998-04-01T00:00:00.000000",
        "reports": {"model": report, "baseline": report},
        "libraries": {},
        "seed": 7,
        **changes,
    }
    tags = {"gate": changes.get("gate", "passed"), "onnx_sha256": digest}
    return _Files(onnx, card), Version("repurchase", 3, 1_700_000_000_000, "run", tags)


@pytest.fixture
def releases(tmp_path: Path) -> Releases:
    models.release(tmp_path, "first", models.constant(0.25))
    return Releases(tmp_path / "release.yaml", tmp_path / "first")


def test_a_registered_version_becomes_a_folder_and_an_entry(releases: Releases) -> None:
    registry, version = registered(models.constant(0.5))
    folder = releases.stage(registry, version)
    assert folder == f"repurchase/{version.called}" == f"repurchase/3-{version.tags['onnx_sha256'][:8]}"
    assert not releases.file.exists()  # nobody is served by it yet
    card = read_card(releases.file.parent / folder)
    assert (card.version, card.horizon_days, card.train_rows, card.test_from) == (version.called, 90, 100, "1998-01-01")
    assert (card.metrics["repurchase"].auc, card.trained_at) == (0.7123, "2023-11-14T22:13:20Z")
    assert card == card_of(version, json.loads(registry.file(version, "extra_files/card.json")))
    releases.release(folder, "canary", share=0.1)
    said = parse(releases.file.read_bytes())["repurchase"]
    assert said.folders() == {"champion": "first", "challenger": folder}
    releases.release(folder)
    assert parse(releases.file.read_bytes())["repurchase"].folders() == {"champion": folder}
    releases.forget()
    assert releases_in(releases.file.read_bytes()) == {}
    assert [path.name for path in releases.file.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("onnx", "changes", "said"),
    [
        (models.constant(0.5), {"features": ["age"]}, "repurchase 3 was made for other features"),
        (models.constant(0.5), {"gate": "failed"}, "repurchase 3 did not pass the gate"),
        (models.constant(7.0), {}, "the model gives no probability for each row"),
        (b"nonsense", {}, "cannot be loaded"),
    ],
)
def test_what_could_not_serve_is_refused_before_anything_changes(
    releases: Releases, onnx: bytes, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(NotReleased, match=said) as refused:
        releases.stage(*registered(onnx, **changes))
    assert "\n" not in str(refused.value)
    assert not releases.file.exists()


def test_a_release_beside_a_version_that_is_gone_is_refused_and_the_file_stays(releases: Releases) -> None:
    text = b"repurchase: {strategy: recreate, champion: gone}\n"
    releases.file.write_bytes(text)
    folder = releases.stage(*registered(models.constant(0.5)))
    with pytest.raises(NotReleased, match="gone: no model"):
        releases.release(folder, "canary", share=0.1)
    assert releases.file.read_bytes() == text
