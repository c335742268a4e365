"""The .env file: made from .env.example with random secrets, and kept in step with it."""

import base64
import hashlib
import io
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

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
    from dotenv import dotenv_values  # `make env` needs nothing but Python

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


# Of production's override: what it asks for besides the passwords and keys of .env.example.
ACCOUNTS = tuple(f"{name}_PASSWORD" for name in ("LOADER", "READER", "TRINO", "CURATION", "OPERATOR", "AIRFLOW", "SUPERSET", "ELASTIC"))
_MORE = (*ACCOUNTS, "TRINO_SHARED_SECRET")
# Trino's own list of those who may ask it, made of their passwords.
_TRINO_USERS = ("curation", "operator", "superset")
_TRINO_FILE = "TRINO_USERS"
_ROUNDS = 20_000  # the passwords are random and long


def write_secrets(folder: Path, example: Path) -> list[str]:
    """A file with a random value for each secret of production that has none yet in `folder`, certificates, and what is made of them;
    their names. Raises RuntimeFailure."""
    from runtime import certificates

    generated = [key for key, value in _keys(example.read_text()).items() if value == _GENERATE and key != "HEADRACE_WRITE_KEY"]
    missing = [name for name in (*generated, *_MORE) if not (folder / name).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # nobody else comes to the files, which each container's own user has to be able to read
    for name in missing:
        _write(folder / name, _default(name, _GENERATE))
    if not (folder / _TRINO_FILE).is_file() or {f"{name.upper()}_PASSWORD" for name in _TRINO_USERS} & {*missing}:
        _write(folder / _TRINO_FILE, "".join(_trino_user(name, folder) for name in _TRINO_USERS))
        missing.append(_TRINO_FILE)
    return missing + certificates.write(folder)


def _trino_user(name: str, folder: Path) -> str:
    """A line of Trino's password file: PBKDF2, in hexadecimal, with SHA-1, the one hash that Trino 476 takes for it."""
    salt = secrets.token_bytes(16)
    digest = hashlib.pbkdf2_hmac("sha1", (folder / f"{name.upper()}_PASSWORD").read_bytes(), salt, _ROUNDS)
    return f"{name}:{_ROUNDS}:{salt.hex()}:{digest.hex()}\n"


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o444)


def main(path: Path, example: Path) -> int:
    """`python -m runtime.envfile .env .env.example`: write or complete the file, and say so."""
    fresh = not path.is_file()
    try:
        added = ensure_env_file(path, example)
    except RuntimeFailure as failure:
        print(f"headrace: {failure}", file=sys.stderr)
        return 1
    print(f"Wrote {path} with random secrets." if fresh else f"Added to {path}: {', '.join(added)}." if added else f"{path} is complete.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
