"""Who sends: write keys, and what the server notes of a sending, none of which a client can set. Pure."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import msgspec

from collector.quota import Quota, Rates
from headrace import keys
from headrace.event import Receipt
from headrace.keys import WriteKey

_MAX_USER_AGENT = 300
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Key(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """A known write key and what it is bound to. None of `only_source` and `types` binds it to nothing."""

    id: str  # public
    digest: bytes
    source: str  # of Segment calls, which name none
    only_source: str | None = None
    types: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    quota: Quota | None = None

    def lets(self, origin: str | None) -> bool:
        """Whether it may be used on a page of this origin; None is no page."""
        return origin is None or origin in self.origins


class Senders:
    """The write keys and the secret of the pseudonyms.

    Keys are looked up by their public id, and their SHA-256 is compared in constant time, so that the time does not tell how much of a
    guess was right.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        collector_id: str,
        pseudonym_key: str,
        *,
        origins: Iterable[str] = (),
        rates: Rates = Rates(),  # noqa: B008 - a tuple
        share: int = 1,
    ) -> None:
        """`sources` are ready-made keys, bound to nothing, each with the source of Segment calls; `origins` are pages that may use them.

        `rates` hold for keys that have none of their own; `share` is the number of processes that serve the same keys.
        """
        self._rates = rates
        self._share = share
        self._collector_id = collector_id
        self._pseudonym_key = pseudonym_key.encode()
        self._ready_made = tuple(self._free(keys.digest(text), source, frozenset(origins)) for text, source in sources.items())
        self._of: dict[WriteKey, Key] = {}
        self.changes = 0
        """How often the keys have changed: what was found before may not hold after."""
        self.use([])
        self.receipt = lru_cache(maxsize=4096)(self._receipt)

    def use(self, made: Collection[WriteKey]) -> None:
        """Let the active ones of `made` take the place of those before. What is not changed keeps its quota."""
        self._of = {key: self._of.get(key) or self._bound(key) for key in made if key.active}
        self.changes += 1
        self._by_id = {key.id: key for key in self._of.values()}
        self.origins = frozenset[str]().union(*(key.origins for key in (*self._ready_made, *self._of.values())))

    def known(self, write_key: str | None) -> Key | None:
        """The active key that `write_key` is, or None."""
        if not write_key:
            return None
        digest = keys.digest(write_key)
        key = self._by_id.get(keys.id_in(write_key) or "")
        if key is not None and hmac.compare_digest(key.digest, digest):
            return key
        return next((key for key in self._ready_made if hmac.compare_digest(key.digest, digest)), None)

    def _free(self, digest: bytes, source: str, origins: frozenset[str]) -> Key:
        return Key(id=digest.hex()[:8], digest=digest, source=source, origins=origins, quota=self._quota(self._rates))

    def _bound(self, made: WriteKey) -> Key:
        events = self._rates.events if made.events_per_second is None else made.events_per_second
        size = self._rates.bytes if made.bytes_per_second is None else made.bytes_per_second
        return Key(
            id=made.id,
            digest=bytes.fromhex(made.sha256),
            source=made.source,
            only_source=made.source,
            types=frozenset(made.types) or None,
            origins=frozenset(made.origins),
            quota=self._quota(Rates(events, size)),
        )

    def _quota(self, rates: Rates) -> Quota | None:
        return Quota(rates, self._share) if any(rates) else None

    def _receipt(self, protocol: str, key: Key, address: str | None, user_agent: str | None) -> Receipt:
        """What the server knows of a sending: the address only as a keyed hash, the user agent without control characters."""
        plain = address.removeprefix("::ffff:") if address else ""  # IPv4 in the form of IPv6: the same client
        client = hmac.new(self._pseudonym_key, plain.encode(), hashlib.sha256).hexdigest()[:32] if plain else None
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
