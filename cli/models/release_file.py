"""What `headrace models release` writes to the release file: a person's words become a release, and the rest of the file stays. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias

import msgspec
import yaml

from enrichment_api.release import CHALLENGER, Ab, BlueGreen, Bounds, Release, ReleaseError, Rolling, bounds_of, parse

Strategy: TypeAlias = Literal["recreate", "rolling", "blue_green", "shadow", "canary", "ab"]
_GUARDED = ("rolling", "canary", "ab")


def releases_in(text: bytes) -> dict[str, Release]:
    """Those of a release file, which may be empty. Raises ReleaseError."""
    empty = all(not line.strip() or line.startswith(b"#") for line in text.splitlines())
    return {} if empty else parse(text)


def wanted(present: Release, folder: str, strategy: Strategy, now: datetime, given: Mapping[str, Any]) -> dict[str, Any]:
    """The entry by which the version in `folder` is released over `present`. `given` has the values that a person said (share, seconds,
    starts_at, name; variant of ab; live of blue_green). Bounds stay as they were. Raises ReleaseError.
    """
    values = {name: value for name, value in given.items() if value is not None}
    serves = _serves(present, now)
    if strategy == "recreate":
        said: dict[str, Any] = {"champion": folder}
    elif strategy == "blue_green":
        said = _colours(present, serves, folder, bool(values.pop("live", False)))
    else:
        if folder == serves:
            raise ReleaseError(f"{folder} is the champion already: it cannot be its own challenger")
        said = {"champion": serves}
        if strategy == "ab":
            arms = msgspec.to_builtins(present.challengers) if isinstance(present, Ab) else {}
            arm = {"model": folder, **({"share": values.pop("share")} if "share" in values else {})}
            said["challengers"] = {**arms, values.pop("variant", CHALLENGER): arm}
        else:
            said["challenger"] = folder
        if strategy == "rolling":
            said["starts_at"] = now
        bounds = bounds_of(present)
        if strategy in _GUARDED and bounds not in (None, Bounds()):
            said["bounds"] = msgspec.to_builtins(bounds)
    return {"strategy": strategy, **said, **values}


def _serves(present: Release, now: datetime) -> str:
    """The folder of who serves everybody, or nearly: where people return to, or a challenger that has them all."""
    folders = present.folders()
    if isinstance(present, Rolling):
        return folders[max(present.shares(now), key=lambda of: of[1])[0]]
    return next(iter(folders.values()))


def _colours(present: Release, serves: str, folder: str, live: bool) -> dict[str, Any]:
    """The version takes the colour that does not serve (or has one already), and is `live` where that is wanted."""
    if isinstance(present, BlueGreen):
        colours, now_live = {"blue": present.blue, "green": present.green}, present.live
    else:
        colours, now_live = {"blue": serves, "green": folder}, "blue"
    idle = "green" if now_live == "blue" else "blue"
    its = next((colour for colour, there in colours.items() if there == folder), idle)
    return {**colours, its: folder, "live": its if live else now_live}


def edited(text: bytes, model: str, entry: Mapping[str, Any] | None) -> bytes:
    """The release file with `entry` for `model` in place of the one that it has (None: without one).

    Other models' entries and the comments around stay as they are. Raises ReleaseError where that is no release file.
    """
    before = {name: release for name, release in releases_in(text).items() if name != model}
    block = yaml.safe_dump({model: dict(entry)}, sort_keys=False, allow_unicode=True) if entry is not None else ""
    whole = text.decode()
    begin, end = _place(whole, model)
    head = whole[:begin] + ("\n" if begin and not whole[:begin].endswith("\n") else "")
    fresh = head + block + whole[end:]
    if entry is None and not before:
        fresh += "{}\n"
    after = parse(fresh.encode())
    if {name: release for name, release in after.items() if name != model} != before or (model in after) is (entry is None):
        raise ReleaseError(f"{model} cannot be changed without changing others: edit the file by hand")
    return fresh.encode()


def _place(whole: str, model: str) -> tuple[int, int]:
    """From where to where the entry of a model goes, with whole lines; its end where it has none."""
    root = yaml.compose(whole, yaml.SafeLoader)
    if root is None:
        return len(whole), len(whole)
    if not root.value:  # {}
        return root.start_mark.index, _line_end(whole, root.end_mark.index)
    for key, value in root.value:
        if key.value == model:
            lines = whole[key.start_mark.index : _line_end(whole, value.end_mark.index)].splitlines(keepends=True)
            while len(lines) > 1 and (not lines[-1].strip() or lines[-1].startswith("#")):
                lines.pop()  # YAML ends a block where the next one begins: what stands between is not of this one
            return key.start_mark.index, key.start_mark.index + len("".join(lines))
    return len(whole), len(whole)


def _line_end(whole: str, at: int) -> int:
    """The beginning of the line after `at`, or `at` where a line begins there."""
    if at == 0 or whole[at - 1 : at] == "\n":
        return at
    found = whole.find("\n", at)
    return len(whole) if found < 0 else found + 1
