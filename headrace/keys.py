"""Write keys: who may send, as which source, which event types, from which pages and how much. Pure; `headrace.keyfile` keeps them.

A write key is `hrk_<id>_<secret>`: the id (8 characters) is public and names the key everywhere; the secret is 43 characters of 62, more
than 256 random bits. Only the SHA-256 of the whole is kept. The secret has full entropy, so no slow hash and no salt is needed.
"""

import hashlib
import math
import re
import secrets
import string
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec

PREFIX = "hrk_"
MAX_ACTIVE = 2  # keys of one source that may be used at a time: the old one and the new one while senders change over
_ALPHABET = string.digits + string.ascii_letters
_ID_CHARS = 8
_SECRET_CHARS = 43  # 62 ** 43 > 2 ** 256
_MAX_SOURCE = 200
_MAX_NOTE = 200
_ID = slice(len(PREFIX), len(PREFIX) + _ID_CHARS)
_HOST = r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])"
_ORIGIN = re.compile(rf"(https?)://{_HOST}(?::([1-9][0-9]{{0,4}}))?")
_OWN_PORT = {"http": "80", "https": "443"}

Rate = Annotated[float, msgspec.Meta(ge=0)]


class KeyProblem(Exception):
    """A key cannot be made or revoked as asked; the message is one sentence for a person."""


class WriteKey(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All that is kept of a write key.

    Events that come with it must be of `source` and of one of `types` (none: every type of the tracking plan). Browsers may use it on
    pages of `origins`. Limits are per second; None means the collector's default, 0 none. `made_at` and `revoked_at` are RFC 3339.
    """

    id: Annotated[str, msgspec.Meta(pattern=f"^[0-9A-Za-z]{{{_ID_CHARS}}}$")]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_SOURCE)]
    made_at: str
    types: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    events_per_second: Rate | None = None
    bytes_per_second: Rate | None = None
    note: str = ""
    revoked_at: str | None = None

    @property
    def active(self) -> bool:
        """Whether it may be used."""
        return self.revoked_at is None


def make(
    *,
    source: str,
    made_at: str,
    types: Iterable[str] = (),
    origins: Iterable[str] = (),
    events_per_second: float | None = None,
    bytes_per_second: float | None = None,
    note: str = "",
) -> tuple[WriteKey, str]:
    """A new key: what is kept of it, and its text, which nobody can get again. Raises KeyProblem."""
    _check_text("source", source, _MAX_SOURCE)
    if note:
        _check_text("note", note, _MAX_NOTE)
    for name, rate in (("events per second", events_per_second), ("bytes per second", bytes_per_second)):
        if rate is not None and not (math.isfinite(rate) and rate >= 0):
            raise KeyProblem(f"{name} {rate}: give a number that is not negative (0: no limit)")
    id = _random(_ID_CHARS)
    text = f"{PREFIX}{id}_{_random(_SECRET_CHARS)}"
    key = WriteKey(
        id=id,
        sha256=digest(text).hex(),
        source=source,
        made_at=made_at,
        types=tuple(dict.fromkeys(types)),
        origins=tuple(dict.fromkeys(map(check_origin, origins))),
        events_per_second=events_per_second,
        bytes_per_second=bytes_per_second,
        note=note,
    )
    return key, text


def with_key(keys: Sequence[WriteKey], new: WriteKey) -> list[WriteKey]:
    """`keys` and `new`. Raises KeyProblem where its source has as many active keys as one may have."""
    active = [key.id for key in keys if key.active and key.source == new.source]
    if len(active) >= MAX_ACTIVE:
        raise KeyProblem(
            f"source {new.source!r} has {len(active)} active keys ({', '.join(active)}), and {MAX_ACTIVE} are allowed: "
            "revoke one with `headrace keys revoke ID`"
        )
    if any(key.id == new.id for key in keys):
        raise KeyProblem(f"there is a key {new.id} already, by chance: try again")
    return [*keys, new]


def without_key(keys: Sequence[WriteKey], id: str, revoked_at: str) -> list[WriteKey]:
    """`keys` with the key `id` revoked at this moment. Raises KeyProblem where there is no such key, or it is revoked already."""
    named = next((key for key in keys if key.id == id), None)
    if named is None:
        raise KeyProblem(f"there is no key {id[:100]!r}: `headrace keys list` names them by their id")
    if not named.active:
        raise KeyProblem(f"key {id} was revoked already, at {named.revoked_at}")
    return [msgspec.structs.replace(key, revoked_at=revoked_at) if key is named else key for key in keys]


def id_in(text: str) -> str | None:
    """The public id in the text of a key, or None where it has not a key's beginning."""
    return text[_ID] if text.startswith(PREFIX) else None


def digest(text: str) -> bytes:
    """The SHA-256 of a key's text, whatever characters it has."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def check_origin(origin: str) -> str:
    """`origin`, where it is what a browser can send as `Origin` (RFC 6454 section 6.2). Raises KeyProblem.

    `*` is refused: a beacon always sends in credentials mode, and the Fetch standard lets no answer to that name `*`.
    """
    if origin == "*":
        raise KeyProblem("origin '*': pages send with credentials, which browsers refuse together with '*': name each origin")
    match = _ORIGIN.fullmatch(origin)
    if not match or int(match[2] or 1) > 65535:
        raise KeyProblem(f"origin {origin[:100]!r}: write http(s)://host[:port] in lower case, with nothing after it")
    if match[2] == _OWN_PORT[match[1]]:
        raise KeyProblem(f"origin {origin!r}: browsers leave out :{match[2]} of {match[1]}: leave it out too")
    return origin


def _check_text(name: str, text: str, longest: int) -> None:
    if not text.strip():
        raise KeyProblem(f"{name} is empty")
    if len(text) > longest:
        raise KeyProblem(f"{name} has {len(text)} characters: at most {longest} are allowed")
    if not text.isprintable():
        raise KeyProblem(f"{name} {text[:50]!r} holds a character that cannot be printed")


def _random(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))
