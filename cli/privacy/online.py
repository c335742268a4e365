"""A person in the online store, where a platform has one."""

from collections.abc import Mapping, Sequence

from cli.privacy.person import Person
from headrace.online import OnlineStore, store_of

_NAME = "online store"


def stores_in(env: Mapping[str, str]) -> list[OnlineStore]:
    """What is kept of customers in the online store: their features, and scores, each where the settings say so."""
    tables = [name for name in env.get("ENRICHMENT_API_SCORES", "").split(",") if name]
    tables += ["customer_features"] if env.get("ENRICHMENT_API_FEATURES") == "redis" else []
    return [store for table in tables if (store := store_of(env, table))]


def count(stores: Sequence[OnlineStore], person: Person) -> Mapping[str, int]:
    """How many rows there are of the person. Raises Unavailable."""
    return {_NAME: sum(store.count(person.names, person.source) for store in stores)} if stores else {}


def erase(stores: Sequence[OnlineStore], person: Person) -> Mapping[str, int]:
    """Delete them. Raises Unavailable."""
    return {_NAME: sum(store.erase(person.names, person.source) for store in stores)} if stores else {}
