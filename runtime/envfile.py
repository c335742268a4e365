"""The .env file: made from .env.example with random secrets, and kept in step with it."""

import base64
import io
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from runtime.errors import RuntimeFailure

_GENERATE = "generate"
_LINE = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$")


def ensure_env_file(path: Path, example: Path) -> list[str]:
    """Make `path` what `example` asks for, and name the settings that were added to a file that was there already.

    Raises RuntimeFailure for a setting in `path` that `example` does not know.
    """
    template = example.read_text()
    if not path.is_file():
        write_privately(path, with_secrets(template))
        return []
    text = path.read_text()
    known, there = _keys(template), _keys(text)
    unknown = [key for key in there if key not in known]
    if unknown:
        raise RuntimeFailure(f"{path}: no such setting: {', '.join(unknown)}: correct the name, or see {example.name} for those there are")
    missing = [key for key in known if key not in there]
    if missing:
        lines = "".join(f"{key}={_default(key, known[key])}\n" for key in missing)
        write_privately(path, f"{text.rstrip()}\n\n# Added from a newer {example.name}.\n{lines}")
    return missing


def with_secrets(template: str) -> str:
    """`template` with each value `generate` replaced by a random secret."""
    lines = []
    for line in template.splitlines():
        match = _LINE.match(line)
        lines.append(f"{match[1]}={_default(match[1], match[2])}" if match else line)
    return "\n".join(lines) + "\n"


def with_settings(text: str, changes: Mapping[str, str]) -> str:
    """The text of an .env file with other values for some settings, which must be there."""
    for key, value in changes.items():
        before, name, after = f"\n{text}".partition(f"\n{key}=")
        if not name:
            raise RuntimeFailure(f"no setting {key} in the .env file")
        text = f"{before}{name}{value}\n{after.partition(chr(10))[2]}".removeprefix("\n")
    return text


def beside(template: str, state_dir: str, shift: int, settings: Mapping[str, str] | None = None) -> str:
    """The text of an .env file for one more platform on this machine: secrets, STATE_DIR and ports (each `shift` higher) of its own.

    `settings` are other values for other settings.
    """
    ports = {key: str(int(value) + shift) for key, value in _keys(template).items() if key.endswith("_PORT") and value != "0"}  # 0: none
    return with_settings(with_secrets(template), {"STATE_DIR": state_dir, **ports, **(settings or {})})


def read(path: Path) -> dict[str, str]:
    """The settings, with ${NAME} replaced by values of the same file only. Raises RuntimeFailure where the file is not there."""
    try:
        text = path.read_text()
    except OSError as error:
        raise RuntimeFailure(f"{path}: {error.strerror}: `make up` writes it at the first start") from None
    return resolved(text)


def resolved(text: str) -> dict[str, str]:
    """The settings in `text`; the surrounding environment has no say in them."""
    raw = dotenv_values(stream=io.StringIO(text), interpolate=False)
    values: dict[str, str] = {}
    for key, value in raw.items():
        values[key] = re.sub(r"\$\{([A-Za-z0-9_]+)\}", lambda match: values.get(match[1], ""), value or "")
    return values


def _keys(text: str) -> dict[str, str]:
    return {match[1]: match[2] for match in map(_LINE.match, text.splitlines()) if match}


def _default(key: str, value: str) -> str:
    if value != _GENERATE:
        return value
    if key.endswith("_FERNET_KEY"):  # the one that must have this form
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return secrets.token_hex(20)  # stands in URLs and in configuration files without being quoted


def write_privately(path: Path, text: str) -> None:
    """Write a file with secrets, which only we may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
