"""What `make demo-drift` plants and how it knows what came true."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from enrichment_api import history
from headrace.features import ABSENT, STATE, states_of
from ml.drift_demo import HORIZON, read, states, with_truth, written
from ml.examples.planted import Bought, turned

BEGINS, SINCE = date(1997, 1, 1), date(1997, 6, 1)
bought = st.lists(
    st.builds(
        Bought,
        st.sampled_from(["00001", "00002", "00003"]),
        st.integers(0, 300).map(lambda days: BEGINS + timedelta(days=days)),
        st.integers(1, 9),
        st.integers(0, 9999).map(lambda cents: cents / 100),
    ),
    max_size=60,
).map(lambda all_of_them: sorted(all_of_them, key=lambda each: each.day))


def test_regulars_stay_away_and_amounts_are_of_another_scale() -> None:
    often = [Bought("often", BEGINS + timedelta(days=10 * n), 1, 10.0) for n in range(30)]
    seldom = [Bought("seldom", SINCE + timedelta(days=n), 2, 4.0) for n in (0, 3)]
    came = turned(sorted([*often, *seldom], key=lambda each: each.day), SINCE)
    days = [(each.day - SINCE).days for each in came if each.customer == "often" and each.day >= SINCE]
    assert days == [9, 39, 69, 99, 129]
    assert [each for each in came if each.customer == "seldom"] == [each._replace(amount=10.0) for each in seldom]
    assert {each.amount for each in came if each.day < SINCE} == {10.0}
    assert {each.amount for each in came if each.customer == "often" and each.day >= SINCE} == {25.0}


@given(bought)
def test_nothing_changes_before_the_change(purchases: list[Bought]) -> None:
    came = turned(purchases, SINCE)
    assert [each for each in came if each.day < SINCE] == [each for each in purchases if each.day < SINCE]
    assert turned(purchases, date(1999, 1, 1)) == purchases
    for customer in {each.customer for each in came}:
        days = sorted({each.day for each in came if each.customer == customer})
        late = [day for day in days[7:] if day >= SINCE and days[days.index(day) - 1] >= SINCE]
        assert all((day - days[days.index(day) - 1]).days >= 30 for day in late)


@given(bought, st.integers(0, 330))
def test_truth_is_one_as_soon_as_they_came_and_nothing_once_the_time_is_over(purchases: list[Bought], days: int) -> None:
    until = BEGINS + timedelta(days=days)
    asked = [
        {"customer_id": each.customer, "predicted_at": datetime(each.day.year, each.day.month, each.day.day, tzinfo=UTC)}
        for each in purchases
    ]
    for each, row in zip(purchases, with_truth(asked, purchases, until), strict=True):
        later = [one.day for one in purchases if one.customer == each.customer and each.day < one.day <= each.day + HORIZON]
        known = [day for day in later if day < until]
        expected = 1.0 if known else 0.0 if each.day + HORIZON < until else None
        assert row["truth"] == expected


@given(bought.filter(bool), st.integers(1, 330))
def test_the_states_are_those_that_training_has(purchases: list[Bought], days: int) -> None:
    until = BEGINS + timedelta(days=days)
    if purchases[0].day >= until:
        return
    made = states(purchases, until)
    found = dict(zip(made["customer_id"].to_pylist(), states_of(made.combine_chunks().to_batches()[0]), strict=True))
    customers = [each.customer for each in purchases]
    time = np.array([each.day for each in purchases], "M8[us]")
    for customer in set(customers):
        asked = [*(each for each in range(len(purchases)) if customers[each] == customer and purchases[each].day < until)]
        mine = [purchases[each] for each in asked]
        state = found.get(customer, ABSENT)
        assert int(state["frequency"]) == len(mine)
        if mine:
            assert (state["first_purchase_at"], state["last_purchase_at"]) == (time[asked[0]], time[asked[-1]])
            assert state["quantity_total"] == sum(each.quantity for each in mine)
            np.testing.assert_allclose(state["monetary_total_usd"], sum(each.amount for each in mine))
    assert set(STATE.names or ()) <= set(made.column_names)


def test_a_file_has_what_was_known(tmp_path: Path) -> None:
    purchases = [Bought("00001", BEGINS, 2, 1.5), Bought("00002", SINCE, 1, 9.99)]
    path = tmp_path / "known.txt"
    written(purchases, SINCE, path)
    assert read(path) == purchases[:1]
    assert history.read(path).customer == ["00001"]
    written(purchases, SINCE + timedelta(days=1), path)
    assert read(path) == purchases
