"""The online store on a real Redis: the same value as offline on real rows, one writer, erasure, and what is done while it is away."""

import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from cli.privacy import online as erasing
from cli.privacy.person import Person
from enrichment_api.customers import Customers
from enrichment_api.history import History, read
from enrichment_api.online import OnlineCopy, OnlineCustomers, store
from headrace.dead_letter import Unavailable
from headrace.features import ABSENT, STATE, features
from headrace.online import Busy, Key, OnlineStore
from tests import models
from tests.collector_real_kafka import ROOT
from tests.enrichment_api_process import enrichment_api
from tests.integration.test_enrichment_api_releases import event
from tests.redis_process import redis_server
from tests.unit.test_train import write_purchases
from verify.ports import free_port

texts = st.text(max_size=20)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as (url, _):
        yield url


@pytest.fixture
def empty(url: str) -> str:
    with Redis.from_url(url) as client:
        client.flushall()
    return url


def _history(tmp_path: Path) -> History:
    """Purchases: those of CDNOW where they are there (`make up` fetches them), else simulated ones."""
    real = ROOT / ".runtime/data/cdnow/CDNOW_master.txt"
    if not real.is_file():
        return read(write_purchases(tmp_path / "purchases.txt"))
    few = tmp_path / "purchases.txt"
    few.write_text("\n".join(real.read_text("ascii").splitlines()[:3_001]) + "\n")
    return read(few)


def test_a_feature_is_the_same_offline_and_online_on_real_rows(empty: str, tmp_path: Path) -> None:
    history = _history(tmp_path)
    keys = [("cdnow", f"{customer}-{place}") for place, customer in enumerate(history.customer)]
    offline = Customers.of([(keys, history.state)])
    online = OnlineCustomers(store(empty, 10))
    assert OnlineCopy(store(empty, 10), online).take(lambda: [(keys, history.state)], "table/1")
    asked = [*keys, ("shop", keys[0][1]), ("cdnow", "nobody")]
    there, here = online.states(asked), offline.states(asked)
    assert there.tobytes() == here.tobytes()
    again = (*range(len(keys)), 0, 0)
    at = (history.time[list(again)], history.quantity[list(again)], history.amount_usd[list(again)])
    (rows, basis), (others, bases) = features(*at, there), features(*at, here)
    assert rows.tobytes() == others.tobytes()
    assert basis.tolist() == bases.tolist()
    assert len(set(basis.tolist())) > 1  # some are known, some new
    assert len(online) == len(keys)


def _numbers(store: OnlineStore, keys: list[Key]) -> list[int | None]:
    return [None if row is None else struct.unpack("<I", row)[0] for row in store.read(keys)]


def _store(url: str, layout: int = 1, row_bytes: int = 4, table: str = "t") -> OnlineStore:
    from headrace.online import connect

    return OnlineStore(connect(url, 10), table, layout, row_bytes)


def _row(number: int) -> bytes:
    return struct.pack("<I", number)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.tuples(texts, texts), st.integers(0, 2**32 - 1), max_size=30), st.lists(st.tuples(texts, texts), max_size=9))
def test_what_was_written_last_is_all_there_is(empty: str, rows: dict[Key, int], others: list[Key]) -> None:
    of = _store(empty)
    of.write([((source + "x", subject), _row(7)) for source, subject in rows], "before")
    written = of.write([(key, _row(number)) for key, number in rows.items()], "after")
    assert of.written() == written
    assert (written.version, written.rows) == ("after", len(rows))
    asked = [*rows, *others, *((source + "x", subject) for source, subject in rows)]
    assert _numbers(of, asked) == [rows.get(key) for key in asked]


def test_rows_of_another_layout_or_table_are_none(empty: str) -> None:
    key = ("shop", "c-1")
    _store(empty).write([(key, _row(1))], "1")
    for other in (_store(empty, layout=2), _store(empty, row_bytes=8), _store(empty, table="t2")):
        assert other.read([key]) == [None]
    assert _store(empty, layout=2).written() is None


def test_there_is_one_writer_at_a_time_and_readers_see_whole_rows(empty: str) -> None:
    keys = [("shop", f"c-{n}") for n in range(3_000)]
    of, begun, go_on = _store(empty), threading.Event(), threading.Event()
    of.write([(key, _row(1)) for key in keys], "1")

    def rows() -> Iterator[tuple[Key, bytes]]:
        for place, key in enumerate(keys):
            if place == 1_500:
                begun.set()
                go_on.wait(60)
            yield key, _row(2)

    writer = threading.Thread(target=lambda: of.write(rows(), "2"))
    writer.start()
    begun.wait(60)
    second = _store(empty)
    with pytest.raises(Busy):
        second.write([], "3")
    assert set(_numbers(second, keys)) == {1, 2}
    assert second.written().version == "1"  # type: ignore[union-attr]
    go_on.set()
    writer.join()
    assert set(_numbers(second, keys)) == {2}


def test_a_write_that_is_cut_off_is_done_anew(empty: str) -> None:
    of = _store(empty)

    def cut() -> Iterator[tuple[Key, bytes]]:
        for number in range(1_500):
            yield ("shop", f"c-{number}"), _row(1)
        raise Unavailable("the lake went away")

    with pytest.raises(Unavailable):
        of.write(cut(), "1")
    assert of.written() is None
    of.write([(("shop", "c-1"), _row(2))], "1")
    assert _numbers(of, [("shop", "c-1"), ("shop", "c-2")]) == [2, None]


def test_a_person_is_erased_of_one_source_or_of_all(empty: str) -> None:
    keys = [("shop", "c-1"), ("shop", "c-11"), ("app", "c-1"), ("1:shop", "c-1"), ("shop", "1:c-1"), ("shop", "hash")]
    of = _store(empty, table="customer_features")
    of.write([(key, _row(1)) for key in keys], "1")
    env = {"ENRICHMENT_API_FEATURES": "redis", "REDIS_URL": empty}
    there = erasing.stores_in(env)
    assert erasing.count(there, Person({"c-1": "hash"})) == {"online store": 4}
    assert erasing.erase(there, Person({"c-1": "none"}, "shop")) == {"online store": 1}
    assert _numbers(of, keys) == [None, 1, 1, 1, 1, 1]
    assert erasing.erase(there, Person({"c-1": "hash"})) == {"online store": 3}
    assert _numbers(of, keys) == [None, 1, None, None, 1, None]
    assert erasing.erase(there, Person({"c-1": "hash"})) == {"online store": 0}
    _store(empty, table="scores_churn").write([(("shop", "c-11"), _row(1))], "1")
    both = erasing.stores_in(env | {"ENRICHMENT_API_SCORES": "scores_churn,scores_other"})
    assert erasing.erase(both, Person({"c-11": "hash"})) == {"online store": 2}
    assert erasing.stores_in(env | {"ENRICHMENT_API_FEATURES": "memory"}) == []
    assert erasing.count([], Person({"hash": "hash"})) == {}


def test_the_api_reads_it_and_says_so_where_it_is_away(tmp_path: Path) -> None:
    models.release(tmp_path, "v1", models.constant(0.25))
    state = np.array([("1997-01-01", "1997-05-01", 3, 7, 59.97)], STATE)
    port = free_port()
    with redis_server(tmp_path / "redis", port) as (url, _):
        of = store(url, 10)
        of.write([(("shop", "c-1"), state.tobytes())], "table/1")
        more = {"FEATURES": "redis"}
        with enrichment_api(tmp_path, redis_url=url, **more) as (api, _), httpx.Client(base_url=api, timeout=60) as client:

            def known() -> list[str]:
                body = {"events": [event("c-1"), event("c-2")]}
                answers = client.post("/v1/score", json=body).json()["enrichments"]
                return [answer["repurchase"]["features"] for answer in answers]

            while known() == ["unavailable", "unavailable"]:  # a busy machine may take longer than a read may
                time.sleep(0.05)
            assert known() == ["customer", "new"]
            with Redis.from_url(url) as redis:
                redis.shutdown(nosave=True)
            while known() != ["unavailable", "unavailable"]:
                time.sleep(0.05)
            with redis_server(tmp_path / "redis", port) as (again, _):
                store(again, 10).write([(("shop", "c-1"), state.tobytes())], "table/1")
                while known() != ["customer", "new"]:
                    time.sleep(0.05)
    assert "the online store is away: every customer is new until it is back" in (tmp_path / "log").read_text()
    assert "the online store answers again" in (tmp_path / "log").read_text()


def test_a_row_is_the_bytes_of_a_state() -> None:
    """What would make the rows of an older version unreadable, silently."""
    assert ABSENT.tobytes() == np.frombuffer(ABSENT.tobytes(), STATE)[0].tobytes()
    assert STATE.itemsize == 40
