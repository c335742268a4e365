"""Who sends: write keys, and what the server notes of a sending, none of which a client can set. Pure."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from headrace.event import Receipt

_MAX_USER_AGENT = 300
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Key(NamedTuple):
    """A known write key: its public id and the source of Segment calls that come with it."""

    id: str
    source: str


class Senders:
    """The write keys and the secret of the pseudonyms.

    Keys are looked up by their SHA-256, so the time of a comparison does not tell how much of a guess was right.
    """

    def __init__(self, sources: Mapping[str, str], collector_id: str, pseudonym_key: str) -> None:
        """`sources` gives the source that each write key is bound to."""
        self._keys = {_digest(key): Key(_digest(key).hex()[:8], source) for key, source in sources.items()}
        self._collector_id = collector_id
        self._pseudonym_key = pseudonym_key.encode()
        self.receipt = lru_cache(maxsize=4096)(self._receipt)

    def known(self, write_key: str | None) -> Key | None:
        """The key that `write_key` is, or None."""
        return self._keys.get(_digest(write_key)) if write_key else None

    def _receipt(self, protocol: str, key: Key, address: str | None, user_agent: str | None) -> Receipt:
        """What the server knows of a sending: the address only as a keyed hash, the user agent without control characters."""
        client = hmac.new(self._pseudonym_key, address.encode(), hashlib.sha256).hexdigest()[:32] if address else None
        agent = _UNPRINTABLE.sub("", user_agent)[:_MAX_USER_AGENT] if user_agent else None
        return Receipt(collector_id=self._collector_id, protocol=protocol, key_id=key.id, client=client, user_agent=agent or None)


@lru_cache(maxsize=64)
def write_key_of(authorization: str) -> str | None:
    """The write key in an `Authorization` header: the user name of Basic (the password does not matter), or the Bearer token."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        user, _, _ = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return user or None


def _digest(write_key: str) -> bytes:
    return hashlib.sha256(write_key.encode(errors="surrogatepass")).digest()
