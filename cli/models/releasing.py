"""From the registry to what serves: a version's folder beside the release file, then the release file, each in one step."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from cli.context import ROOT
from cli.models.release_file import Strategy, edited, releases_in, wanted
from enrichment_api.model import Card, Metrics, Model, ModelError, read_card, tried, write
from enrichment_api.release import MAX_VARIANTS, Recreate, Release, ReleaseError, parse
from headrace.features import FEATURES, MODEL
from ml.errors import Mendable
from ml.registry import CARD_FILE, Registry, Version

_AGAIN = f"`headrace models release {MODEL}` tries again"


class NotReleased(Mendable):
    """A version cannot serve, or nobody could be told that it should."""


@dataclass(frozen=True)
class Releases:
    """The release file of the enrichment API, and the model that serves where the file names none."""

    file: Path
    model_dir: Path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """Those of the platform with these settings."""
        model_dir = ROOT / env["ENRICHMENT_API_MODEL_DIR"]
        file = env["ENRICHMENT_API_RELEASE_FILE"]
        return cls(ROOT / file if file else model_dir.parent / "release.yaml", model_dir)

    def stage(self, registry: Registry, version: Version) -> str:
        """Fetch the version into a folder that nobody is served from yet, and try it: its name in the release file.

        Raises NotReleased where the API could not use it, RegistryError.
        """
        if version.model != MODEL:
            raise NotReleased(f"the enrichment API serves {MODEL} alone; {version.model} scores in batches (the DAG `score`)")
        if not version.passed:
            raise NotReleased(f"{version.model} {version.number} did not pass the gate: `headrace models show {version.model}` says why")
        card = card_of(version, json.loads(registry.file(version, CARD_FILE)))
        if card.features != FEATURES:
            raise NotReleased(f"{version.model} {version.number} was made for other features than those of this code: train anew")
        name = f"{MODEL}/{card.version}"
        folder = self.file.parent / name
        try:
            write(folder, registry.onnx(version), card)
            tried(Model.load(folder), folder)
        except (ModelError, OSError) as error:
            raise NotReleased(f"{version.model} {version.number} cannot serve: {error}") from None
        return name

    def release(self, folder: str, strategy: Strategy = "recreate", **given: Any) -> Release:
        """Let the release file say that the version in `folder` serves, by `strategy` with the values `given`.

        Raises NotReleased, with the file as it was, where the API would refuse it.
        """
        try:
            text = self._text()
            present = releases_in(text).get(MODEL) or Recreate(champion=os.path.relpath(self.model_dir, self.file.parent))
            fresh = edited(text, MODEL, wanted(present, folder, strategy, datetime.now(UTC), given))
            release = parse(fresh)[MODEL]
            self._check(release)
            self._replace(fresh)
        except (ReleaseError, ModelError, OSError) as error:
            raise NotReleased(f"{self.file}: {error}: what served before goes on ({_AGAIN})") from None
        return release

    def forget(self) -> None:
        """Let the release file say nothing of the model: the one in ENRICHMENT_API_MODEL_DIR serves. Raises NotReleased."""
        try:
            read_card(self.model_dir)
            self._replace(edited(self._text(), MODEL, None))
        except (ReleaseError, ModelError, OSError) as error:
            raise NotReleased(f"{self.file}: {error}: what served before goes on") from None

    def _check(self, release: Release) -> None:
        folders = release.folders().values()
        if len(folders) > MAX_VARIANTS:
            raise ReleaseError(f"at most {MAX_VARIANTS} variants of a model are in memory at once")
        for folder in folders:
            read_card(self.file.parent / folder)

    def _text(self) -> bytes:
        return self.file.read_bytes() if self.file.exists() else b""

    def _replace(self, text: bytes) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.file.with_name(f".{self.file.name}-{os.getpid()}")
        fresh.write_bytes(text)
        os.replace(fresh, self.file)


def card_of(version: Version, card: Mapping[str, Any]) -> Card:
    """The card of a registered version, in the form that the API reads."""
    made = datetime.fromtimestamp(version.created_ms // 1000, UTC)
    reports = {MODEL if name == "model" else name: report["overall"] for name, report in card["reports"].items()}
    return Card(
        model=version.model,
        version=version.called,
        trained_at=made.isoformat().replace("+00:00", "Z"),
        horizon_days=int(card["horizon_days"]),
        features=tuple(card["features"]),
        onnx_sha256=card["onnx_sha256"],
        data_sha256=card["data_snapshot"],
        train_rows=card["rows"]["fit"],
        train_until=card["learnt_until"][:10],
        test_rows=card["rows"]["judge"],
        test_from=card["judged_from"][:10],
        test_until=card["judged_until"][:10],
        metrics={name: Metrics(round(fit["auc"], 4), round(fit["log_loss"], 4)) for name, fit in reports.items()},
        libraries=card["libraries"],
        seed=card["seed"],
    )
