"""What the model sees: the same in training and in serving, and never the future."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichment_api import history
from enrichment_api.customers import Customers
from enrichment_api.train import outcome, split
from headrace.features import ABSENT, FEATURES, STATE, Basis, features, states_of

NOW = np.datetime64("2026-03-01T12:00:00", "us")
keys = st.sets(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=20)
HEADING = "customer_id date number_of_cds dollar_value"
Purchase = tuple[str, int, int, float]  # customer, day of 1997, items, dollars
dollars = st.integers(0, 9999).map(lambda cents: cents / 100)
purchases = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 330), st.integers(1, 9), dollars),
    max_size=25,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


def _row(**values: Any) -> dict[str, float]:
    """The features of one purchase of 2 items for 30 dollars at NOW, by name."""
    state = np.array([tuple(values.get(name, ABSENT[name]) for name in STATE.names or ())], STATE)
    rows, _ = features(np.array([NOW]), np.array([2.0]), np.array([30.0]), state)
    return dict(zip(FEATURES, rows[0].tolist(), strict=True))


def _write(folder: Path, bought: list[Purchase]) -> Path:
    lines = [f"{who} {datetime(1997, 1, 1) + timedelta(days=day):%Y%m%d} {items} {dollars:.2f}" for who, day, items, dollars in bought]
    path = folder / "purchases.txt"
    path.write_text("\r\n".join([HEADING, *lines]) + "\r\n")
    return path


def test_a_new_customer_is_an_indicator_and_zeros() -> None:
    assert _row() == dict.fromkeys(FEATURES, 0.0) | {"quantity": 2.0, "amount_usd": 30.0, "is_new": 1.0}


def test_a_known_customer_is_described_relative_to_the_purchase() -> None:
    row = _row(
        first_purchase_at=NOW - np.timedelta64(60, "D"),
        last_purchase_at=NOW - np.timedelta64(36, "h"),
        frequency=4,
        quantity_total=10,
        monetary_total_usd=100,
    )
    assert row == {
        "quantity": 2.0,
        "amount_usd": 30.0,
        "is_new": 0.0,
        "recency_days": 1.5,
        "frequency": 4.0,
        "mean_gap_days": 19.5,
        "purchases_per_month": pytest.approx(4 / 3),
        "mean_quantity": 2.5,
        "mean_amount_usd": 25.0,
    }


@pytest.mark.parametrize("later", [0, 1, 10**12])
def test_a_state_that_is_not_older_than_the_purchase_does_not_count(later: int) -> None:
    state = np.array([(NOW - np.timedelta64(60, "D"), NOW + np.timedelta64(later, "us"), 4, 10, 100)], STATE)
    got = features(np.array([NOW]), np.array([2.0]), np.array([30.0]), state)
    of_new = features(np.array([NOW]), np.array([2.0]), np.array([30.0]), np.array([ABSENT]))
    assert got[0].tolist() == of_new[0].tolist()
    assert (got[1].tolist(), of_new[1].tolist()) == ([Basis.AHEAD], [Basis.NEW])


@given(st.lists(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)), min_size=3, max_size=3), st.floats(0, 1e9), st.floats(0, 1e9))
def test_all_features_are_finite(times: list[datetime], number: float, dollars: float) -> None:
    first, last, now = np.array(times, "M8[us]")
    state = np.array([(first, last, number, number, dollars)], STATE)
    rows, _ = features(np.array([now]), np.array([number]), np.array([dollars]), state)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()


@given(purchases)
def test_history_knows_what_came_before_and_after_and_nothing_else(folder: Path, bought: list[Purchase]) -> None:
    if not bought:
        return
    read = history.read(_write(folder, bought))
    expected = sorted(bought, key=lambda purchase: purchase[1])
    for i, (who, day, items, dollars) in enumerate(expected):
        before = [purchase for purchase in expected if purchase[0] == who and purchase[1] < day]
        after = [purchase[1] for purchase in expected if purchase[0] == who and purchase[1] > day]
        at = np.datetime64("1997-01-01", "us") + np.timedelta64(day, "D")
        assert (read.customer[i], read.time[i], read.quantity[i], read.amount_usd[i]) == (who, at, items, dollars)
        assert int(read.state[i]["frequency"]) == len(before)
        assert read.state[i]["quantity_total"] == sum(purchase[2] for purchase in before)
        assert read.state[i]["monetary_total_usd"] == pytest.approx(sum(purchase[3] for purchase in before))
        if before:
            assert read.state[i]["last_purchase_at"] == np.datetime64("1997-01-01", "us") + np.timedelta64(before[-1][1], "D")
            assert read.state[i]["first_purchase_at"] == np.datetime64("1997-01-01", "us") + np.timedelta64(before[0][1], "D")
        else:
            assert np.isnat(read.state[i]["last_purchase_at"])
        assert outcome(read)[i] == any(later - day <= 90 for later in after)


@given(purchases)
def test_what_is_learnt_from_is_over_before_the_test_begins(folder: Path, bought: list[Purchase]) -> None:
    read = history.read(_write(folder, [("z", 0, 1, 1.0), *bought, ("z", 330, 1, 1.0)]))
    train, test = split(read)
    horizon = np.timedelta64(90, "D")
    assert not (train & test).any()
    assert all(read.time[test] + horizon <= read.time[-1])
    if test.any():
        assert all(read.time[train] + horizon < read.time[test].min())


@pytest.mark.parametrize("line", ["00001 19970101 1", "00001 1997-01-01 1 2.00", "00001 19971301 1 2.00", "00001 19970101 one 2.00"])
def test_a_line_that_is_no_purchase_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "purchases.txt"
    path.write_text(f"{HEADING}\n00001 19970101 1 2.00\n{line}\n")
    with pytest.raises(history.BadData, match=r"purchases\.txt, line 3: expected customer, yyyymmdd, items and dollars, found '00001"):
        history.read(path)


def test_serving_gives_the_features_of_training(tmp_path: Path) -> None:
    """For each day: the lake's table as of that day, made row by row in another way, gives what the history gave."""
    generator = np.random.default_rng(7)
    bought = [(f"c{generator.integers(40)}", int(generator.integers(0, 200)), int(generator.integers(1, 6)), 9.99) for _ in range(400)]
    read = history.read(_write(tmp_path, bought))
    learnt, basis = features(read.time, read.quantity, read.amount_usd, read.state)
    assert set(basis.tolist()) == {Basis.NEW, Basis.CUSTOMER}
    for day in np.unique(read.time):
        rows = np.flatnonzero(read.time == day)
        table: dict[str, dict[str, Any]] = {}
        for i in np.flatnonzero(read.time < day):
            row = table.setdefault(
                read.customer[i],
                {
                    "source": "cdnow",
                    "customer_id": read.customer[i],
                    "first_purchase_at": read.time[i].item().replace(tzinfo=UTC),
                    "frequency": 0,
                    "quantity_total": 0,
                    "monetary_total_usd": 0.0,
                },
            )
            row["last_purchase_at"] = read.time[i].item().replace(tzinfo=UTC)
            row["frequency"] += 1
            row["quantity_total"] += int(read.quantity[i])
            row["monetary_total_usd"] += float(read.amount_usd[i])
        batches = pa.Table.from_pylist(list(table.values())).to_batches() if table else []
        known = [[("cdnow", name) for name in batch.column("customer_id").to_pylist()] for batch in batches]
        customers = Customers.of((key, states_of(batch)) for key, batch in zip(known, batches, strict=True))
        served, _ = features(
            read.time[rows], read.quantity[rows], read.amount_usd[rows], customers.states([("cdnow", read.customer[i]) for i in rows])
        )
        np.testing.assert_array_equal(served, learnt[rows])


@given(keys, keys)
def test_each_customer_is_found_and_no_other(known: set[tuple[str, str]], others: set[tuple[str, str]]) -> None:
    there, away = sorted(known), sorted(others - known)
    states = np.full(len(there), ABSENT)
    states["frequency"] = np.arange(1, len(there) + 1)
    customers = Customers.of([(there, states)])
    assert len(customers) == len(there)
    assert customers.states(there)["frequency"].tolist() == list(range(1, len(there) + 1))
    assert np.isnat(customers.states(away)["last_purchase_at"]).all()
    assert len(customers.states(away)) == len(away)
