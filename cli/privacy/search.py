"""Erasing a person from Elasticsearch."""

from collections.abc import Callable, Sequence

from elasticsearch import Elasticsearch

from cli.chunks import chunks
from cli.privacy.person import Person, documents

_ALIASES = ("events_all", "dead_letters_all")
_AT_ONCE = 5000
_DELETED, _GONE_ALREADY = 200, 404  # what a bulk request says of one deletion
# Deleted documents are left out of the files of an index when these are merged. By default a merge that is asked for spares files of which
# less than a tenth is deleted.
_ALL_DELETED = {"index.merge.policy.expunge_deletes_allowed": 0}


class Refused(Exception):
    """Elasticsearch did not delete a document; the message says of which index, and why."""


def count(client: Elasticsearch, person: Person, letters: Sequence[str]) -> dict[str, int]:
    """The person's documents under each alias. Raises elasticsearch's errors."""
    client.indices.refresh(index=list(_ALIASES))
    ids = set(letters)
    found = {alias: int(client.count(index=alias, query=documents(person))["count"]) for alias in _ALIASES}
    for some in chunks(sorted(ids), _AT_ONCE):
        query = {"bool": {"filter": [{"terms": {"dead_letter_id": some}}], "must_not": [documents(person)]}}
        found[_ALIASES[1]] += int(client.count(index=_ALIASES[1], query=query)["count"])
    return found


def erase(client: Elasticsearch, person: Person, letters: Sequence[str], say: Callable[[str], None]) -> dict[str, int]:
    """Delete the person's documents, and have the files of the indices written without them. The numbers deleted.

    Raises Refused, and elasticsearch's errors.
    """
    say("deleting documents from Elasticsearch")
    gone = dict.fromkeys(_ALIASES, 0)
    for alias, queries in (
        (_ALIASES[0], [documents(person)]),
        (_ALIASES[1], [documents(person, some) for some in chunks(letters, _AT_ONCE) or [[]]]),
    ):
        for query in queries:
            # By search and bulk: the Elasticsearch that `make up` starts has no _delete_by_query.
            while hits := client.search(index=alias, query=query, size=_AT_ONCE, source=False)["hits"]["hits"]:
                operations = [{"delete": {"_index": hit["_index"], "_id": hit["_id"]}} for hit in hits]
                items = [item["delete"] for item in client.bulk(operations=operations, refresh=True)["items"]]
                gone[alias] += sum(item["status"] == _DELETED for item in items)
                if refused := [item for item in items if item["status"] not in (_DELETED, _GONE_ALREADY)]:
                    raise Refused(f"{refused[0]['_index']}: {refused[0]['error']['reason']}")
    say("merging the indices of Elasticsearch")
    client.indices.put_settings(index=list(_ALIASES), settings=_ALL_DELETED)
    client.options(request_timeout=600).indices.forcemerge(index=list(_ALIASES), only_expunge_deletes=True)
    client.indices.flush(index=list(_ALIASES))
    return gone
