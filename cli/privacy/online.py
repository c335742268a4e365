"""A person in the online store, where a platform has one."""

from collections.abc import Mapping

from cli.privacy.person import Person
from headrace.online import OnlineStore, store_of

_NAME = "online store"


def store_in(env: Mapping[str, str]) -> OnlineStore | None:
    """The store of the customers' features; None where the features are not kept in one."""
    return store_of(env, "customer_features") if env.get("ENRICHMENT_API_FEATURES") == "redis" else None


def count(store: OnlineStore | None, person: Person) -> Mapping[str, int]:
    """How many rows there are of the person. Raises Unavailable."""
    return {_NAME: store.count(person.names, person.source)} if store else {}


def erase(store: OnlineStore | None, person: Person) -> Mapping[str, int]:
    """Delete them. Raises Unavailable."""
    return {_NAME: store.erase(person.names, person.source)} if store else {}
