"""Scores of batches in the online store: the champions' newest ones, from a real lake to who asks over HTTP."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from redis import Redis

from enrichment_api.scores import Score, ScoresCopy, read, store
from headrace.scores import CHAMPIONS
from tests import models
from tests.enrichment_api_process import enrichment_api
from tests.integration import lakes
from tests.redis_process import redis_server

pytestmark = pytest.mark.usefixtures("servers")

JUNE, JULY, LATER = (datetime(1998, month, 1, tzinfo=UTC) for month in (6, 7, 8))
_MOMENT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "customer_id")),
        *(("as_of", _MOMENT), ("model", pa.string()), ("model_version", pa.int32()), ("score", pa.float64()), ("scored_at", _MOMENT)),
    ]
)


class Scores:
    """A table as `ml score` leaves it."""

    def __init__(self, namespace: str) -> None:
        lakes.catalog().create_namespace(namespace)
        self.name = (namespace, "scores_churn")
        self.table = lakes.catalog().create_table(self.name, SCHEMA)

    def add(self, version: int, as_of: datetime, model: str = "churn", source: str = "cdnow", **scores: float) -> None:
        said = {"source": source, "as_of": as_of, "model": model, "model_version": version, "scored_at": LATER}
        self.table.append(pa.Table.from_pylist([{**said, "customer_id": who, "score": score} for who, score in scores.items()], SCHEMA))

    def promote(self, **versions: int) -> None:
        with self.table.transaction() as change:
            change.set_properties({CHAMPIONS: json.dumps(versions)})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def scores(url: str) -> Iterator[Scores]:
    with Redis.from_url(url) as client:
        client.flushall()
    namespace = f"test_scores_{uuid.uuid4().hex[:8]}"
    yield Scores(namespace)
    lakes.drop(namespace)


def copied(url: str, scores: Scores, *customers: str, source: str = "cdnow") -> list[float | None]:
    """The score of each customer once the table was looked at."""
    of = store(url, "scores_churn", 10)
    ScoresCopy(lakes.catalog, of, scores.name, 15).look()
    found = [read(of, source, customer) for customer in customers]
    return [each.score if each else None for each in found]


def test_the_champions_newest_scores_are_there_and_follow_the_table(url: str, scores: Scores) -> None:
    assert copied(url, scores, "ann") == [None]  # nothing is scored, and nobody is champion
    scores.add(1, JUNE, ann=0.1, bob=0.2)
    scores.promote(churn=1)
    assert copied(url, scores, "ann", "bob", "cat") == [0.1, 0.2, None]
    assert copied(url, scores, "ann", source="shop") == [None]
    scores.add(1, JULY, ann=0.3, cat=0.4)
    assert copied(url, scores, "ann", "bob", "cat") == [0.3, None, 0.4]  # bob is not asked for any more
    scores.add(2, JULY, ann=0.5, cat=0.6)
    assert copied(url, scores, "ann", "cat") == [0.3, 0.4]  # promoted, but not in the property: its scores may not all be there
    scores.promote(churn=2)
    assert copied(url, scores, "ann", "cat") == [0.5, 0.6]
    scores.promote(churn=1)
    assert copied(url, scores, "ann", "cat") == [0.3, 0.4]  # rolled back
    scores.add(7, JULY, "churn-shop", "shop", ann=0.7)
    scores.promote(**{"churn": 1, "churn-shop": 7})
    assert copied(url, scores, "ann", source="shop") == [0.7]
    assert read(store(url, "scores_churn", 10), "shop", "ann") == Score("churn-shop", 7, 0.7, JULY, LATER)
    scores.table.delete("customer_id = 'ann'")  # as an erasure does
    assert copied(url, scores, "ann", "cat") == [None, 0.4]


def test_what_did_not_change_is_not_written_again(url: str, scores: Scores) -> None:
    scores.add(1, JUNE, ann=0.1)
    scores.promote(churn=1)
    copied(url, scores)
    first = store(url, "scores_churn", 10).written()
    copied(url, scores)
    assert store(url, "scores_churn", 10).written() == first


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        (("flight", "score"), "it has no column customer_id and source"),
        (("source", "customer_id", "product", "score"), "it has many scores of a customer, by product"),
    ],
)
def test_a_table_that_has_no_score_for_each_customer_is_said_once_and_nothing_is_written(
    url: str, scores: Scores, capsys: pytest.CaptureFixture[str], columns: tuple[str, ...], why: str
) -> None:
    lakes.catalog().drop_table(scores.name)
    lakes.catalog().create_table(scores.name, pa.schema([(name, pa.float64() if name == "score" else pa.string()) for name in columns]))
    of = store(url, "scores_churn", 10)
    copy = ScoresCopy(lakes.catalog, of, scores.name, 15)
    copy.look()
    copy.look()
    lines = [line for line in capsys.readouterr().out.splitlines() if "not copied" in line]
    assert len(lines) == 1
    assert why in lines[0]
    assert of.written() is None


def test_it_is_looked_up_over_http_whether_or_not_the_lake_is_there(url: str, scores: Scores, tmp_path: Path) -> None:
    scores.add(1, JUNE, ann=0.125)
    scores.promote(churn=1)
    copied(url, scores)
    models.release(tmp_path, "v1", models.constant(0.25))
    with (
        enrichment_api(tmp_path, redis_url=url, SCORES="scores_churn") as (api, _),  # whose lake does not answer
        httpx.Client(base_url=api, timeout=60) as http,
    ):

        def asked(table: str, **who: str) -> tuple[int, Any]:
            answer = http.get(f"/v1/scores/{table}", params=who)
            return answer.status_code, answer.json()

        ann = {"source": "cdnow", "customer_id": "ann"}
        said = {"model": "churn", "version": 1, "score": 0.125, "as_of": "1998-06-01T00:00:00Z", "scored_at": "1998-08-01T00:00:00Z"}
        assert asked("scores_churn", **ann) == (200, said)
        status, refused = asked("scores_churn", source="cdnow", customer_id="nobody")
        assert (status, refused["code"]) == (404, "no_score")
        status, refused = asked("scores_other", **ann)
        assert (status, refused["code"]) == (404, "not_found")
        assert "there are scores_churn" in refused["message"]
        assert "/v1/scores/{table}" in http.get("/openapi.json").json()["paths"]
        assert asked("scores_churn", source="cdnow") == (422, {"code": "invalid", "message": "customer_id: Field required: see /docs"})


def test_where_the_store_does_not_answer_it_is_said(tmp_path: Path) -> None:
    models.release(tmp_path, "v1", models.constant(0.25))
    with enrichment_api(tmp_path, redis_url="redis://127.0.0.1:1/0", SCORES="scores_churn") as (api, _):
        answer = httpx.get(f"{api}/v1/scores/scores_churn", params={"source": "cdnow", "customer_id": "ann"}, timeout=60)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unavailable", "1")
