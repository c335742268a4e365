"""Keeps what serves in step with the release file, without a restart: looks each second, loads on a thread, and changes it in one step.

What cannot be used is refused with a line in the log, and what served before goes on. A request that is under way keeps the models that
it began with.
"""

import contextvars
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog
from prometheus_client import Counter, Gauge

from enrichment_api.cache import Cached, Scores
from enrichment_api.guard import Broken
from enrichment_api.model import CARD_FILE, ONNX_FILE, Model, ModelError, read_card, tried
from enrichment_api.release import MAX_VARIANTS, Recreate, Release, ReleaseError, digest, parse
from enrichment_api.serving import Serving, in_words
from enrichment_api.shadow import Shadow
from headrace.errors import in_a_line
from headrace.features import MODEL
from headrace.keyfile import Signature, signature

_log = structlog.get_logger()
_usable = Gauge("enrichment_api_release_usable", "1 where the release file and its models could be used at the last look, else 0")
_changes = Counter("enrichment_api_release_changes_total", "Times that what serves was changed")
_refusals = Counter("enrichment_api_release_refused_total", "Release files or models that were refused")


class _Back(msgspec.Struct):
    """That a variant's subjects returned to the champion, kept beside the release file over a restart."""

    digest: str  # of the release: a file that says anything else begins anew
    variant: str
    why: Broken
    at: str


class Watch:
    """`serving` is what serves; `refused` says why the present file, or a model that it names, is not used (None: it is).

    Without a release file, the model in `model_dir` serves everybody.
    """

    def __init__(self, model_dir: Path, release_file: Path, shadow: Shadow | None, seconds: float, cache_rows: int = 0) -> None:
        self.refused: str | None = None
        self._model_dir, self._file = model_dir, release_file
        self._returned_file = release_file.with_name(release_file.name + ".returned")
        self._shadow, self._seconds = shadow, seconds
        self._cache_rows = cache_rows
        self._text: tuple[Signature | str, Release | None] = ("not yet", None)
        self._seen: object = None
        self._kept: list[_Back] | None = None
        self._kept_trouble = False
        self._stop = threading.Event()
        self.serving = self._load(*self._wanted())  # raises ReleaseError or ModelError: there is nothing yet that could go on
        self._seen = self._now_wanted()
        self._bring_back()
        self._tell()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="release", daemon=True)

    def start(self) -> None:
        """Begin to look, every `seconds`."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self.look()

    def look(self) -> None:
        """Use the release file and its models where they are others than last time. Raises nothing."""
        refused = self.refused
        try:
            now = self._now_wanted()
            if now != self._seen:
                self._seen = now
                self._change()
                refused = None
        except (ReleaseError, ModelError, OSError) as error:
            self._seen = None if isinstance(error, OSError | ReleaseError) else self._seen
            refused = str(error)
        except Exception as error:  # a model's file may make its runtime raise anything
            refused = f"{type(error).__name__}: {in_a_line(error)}"
        if refused and refused != self.refused:
            _refusals.inc()
            _log.error("the release is refused: what served before goes on", why=refused, serves=self.serving.card.version)
        self.refused = refused
        self._bring_back()
        self._tell()

    def _tell(self) -> None:
        _usable.set(self.refused is None)
        self.serving.measure()

    def _wanted(self) -> tuple[Release, Mapping[str, Path]]:
        """The release and the folder of each of its variants. Raises ReleaseError, OSError."""
        seen = signature(self._file)
        if seen != self._text[0]:
            self._text = ("not yet", None)
            try:
                text = self._file.read_bytes() if seen else b"{}"
                releases = parse(text)
            except (ReleaseError, OSError) as error:
                raise ReleaseError(f"{self._file}: {getattr(error, 'strerror', None) or error}") from None
            if others := sorted(set(releases) - {MODEL}):
                raise ReleaseError(f"{self._file}: {others[0]}: no such model here: this API serves {MODEL}")
            self._text = (seen, releases.get(MODEL))
        release = self._text[1]
        if release is None:
            return Recreate(champion="."), {"champion": self._model_dir}
        return release, {variant: self._file.parent / folder for variant, folder in release.folders().items()}

    def _now_wanted(self) -> object:
        """What is another whenever the release or one of its models' files is. Raises as `_wanted`."""
        release, folders = self._wanted()
        return release, [(folder, signature(folder / ONNX_FILE), signature(folder / CARD_FILE)) for folder in folders.values()]

    def _change(self) -> None:
        before, after = self.serving, self._load(*self._wanted())
        if after.digest == before.digest and after.models == before.models:
            return  # an edit that changes nothing: guards go on with what they know
        self.serving = after
        _changes.inc()
        shares = {standing.variant: f"{standing.version} {standing.share:.4g}" for standing in after.standings()}
        _log.info("what serves has changed", strategy=in_words(after.release), variants=shares)

    def _load(self, release: Release, folders: Mapping[str, Path]) -> Serving:
        """Raises ModelError. What is in memory already is not loaded again."""
        if len(folders) > MAX_VARIANTS:
            raise ReleaseError(f"{self._file}: at most {MAX_VARIANTS} variants of a model are in memory at once")
        have: dict[tuple[str, str], Scores] = {}
        if self._seen is not None:
            have = {(model.card.version, model.card.onnx_sha256): model for model in self.serving.models.values()}
        models = {}
        for variant, folder in folders.items():
            card = read_card(folder)
            key = (card.version, card.onnx_sha256)
            if key not in have or have[key].card != card:
                have[key] = self._remembering(tried(Model.load(folder), folder))
            models[variant] = have[key]
        kept = {back.variant: back.why for back in self._read_kept() if back.digest == digest(release)}
        return Serving(release, models, self._shadow, returned=kept)

    def _remembering(self, model: Model) -> Scores:
        return Cached(model, self._cache_rows) if self._cache_rows else model

    # ---- who returned to the champion, also where that was found by another copy, or before a restart ----

    def _bring_back(self) -> None:
        """Exchange with the file beside the release file who returned. One that cannot be written is no reason to serve a bad variant."""
        ours = self.serving
        kept = [back for back in self._read_kept() if back.digest == ours.digest]
        for back in kept:
            ours.put_back(back.variant, back.why)
        new = {variant: why for variant, why in ours.returned.items() if variant not in {back.variant for back in kept}}
        if not new:
            return
        at = datetime.now(UTC).isoformat(timespec="seconds")
        kept += [_Back(ours.digest, variant, why, at) for variant, why in new.items()]
        temporary = self._returned_file.with_name(f".{self._returned_file.name}-{os.getpid()}")
        try:
            temporary.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1) + b"\n")
            os.replace(temporary, self._returned_file)
        except OSError as error:
            if not self._kept_trouble:
                _log.warning("who returned to the champion is not kept over a restart", why=f"{self._returned_file}: {error.strerror}")
            self._kept_trouble = True

    def _read_kept(self) -> list[_Back]:
        try:
            return msgspec.json.decode(self._returned_file.read_bytes(), type=list[_Back])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("who returned to the champion before cannot be read", why=f"{self._returned_file}: {error}")
            return []
