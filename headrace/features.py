"""What the model `repurchase` sees of a purchase: one pure function, for training and for serving (decision 0051).

A purchase is described by its own fields and by its customer's state before it: a row of `lake.gold.customer_features`. A state counts
only if its last purchase is older than the purchase to be scored. One that is not knows the future (or the purchase itself), and the
customer is scored as a new one.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

MODEL = "repurchase"
HORIZON_DAYS: Final = 90  # the model says how likely the customer buys again within this many days

# A customer's state. The names are those of the columns of customer_features; times are UTC.
STATE = np.dtype(
    [
        ("first_purchase_at", "M8[us]"),
        ("last_purchase_at", "M8[us]"),
        ("frequency", "f8"),  # number of purchases
        ("quantity_total", "f8"),
        ("monetary_total_usd", "f8"),
    ]
)
ABSENT = np.array((np.datetime64("NaT"), np.datetime64("NaT"), 0, 0, 0), dtype=STATE)

FEATURES: Final = (
    "quantity",
    "amount_usd",
    "is_new",
    "recency_days",
    "frequency",
    "mean_gap_days",
    "purchases_per_month",
    "mean_quantity",
    "mean_amount_usd",
)


class Basis(IntEnum):
    """What is known of the customer at the moment of a purchase."""

    NEW = 0  # no state
    CUSTOMER = 1  # a state older than the purchase: used
    AHEAD = 2  # a state that is not older than the purchase: not used


_DAY = np.timedelta64(86_400_000_000, "us")
_MONTH_DAYS = 30


def features(
    time: NDArray[np.datetime64], quantity: NDArray[np.float64], amount_usd: NDArray[np.float64], state: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The rows of features (columns as in FEATURES, all finite) and the `Basis` of each, for purchases at `time`.

    `state` is an array of STATE, `ABSENT` where there is none.
    """
    first, last = state["first_purchase_at"], state["last_purchase_at"]
    known = (first <= last) & (last < time)  # False for NaT
    basis = np.where(known, Basis.CUSTOMER, np.where(np.isnat(last), Basis.NEW, Basis.AHEAD)).astype(np.int8)
    frequency = np.where(known, np.maximum(state["frequency"], 1), 0)
    at_least_one = np.maximum(frequency, 1)
    tenure = np.where(known, (time - first) / _DAY, 0)
    active = np.where(known, (last - first) / _DAY, 0)
    columns = (
        quantity,
        amount_usd,
        ~known,
        np.where(known, (time - last) / _DAY, 0),
        frequency,
        active / np.maximum(frequency - 1, 1),
        frequency / (tenure / _MONTH_DAYS + 1),  # a rate, and not the tenure itself: that grows beyond all that was learnt from
        np.where(known, state["quantity_total"], 0) / at_least_one,
        np.where(known, state["monetary_total_usd"], 0) / at_least_one,
    )
    return np.column_stack(columns).astype(np.float32), basis


def states_of(batch: "pa.RecordBatch") -> NDArray[Any]:
    """The states in rows that have the columns of STATE, as those of customer_features do."""
    import pyarrow as pa

    states = np.empty(batch.num_rows, STATE)
    for name in STATE.names or ():
        is_time = STATE[name].kind == "M"
        column = batch.column(name).cast(pa.timestamp("us", "UTC") if is_time else pa.float64())
        states[name] = column.cast(pa.timestamp("us")) if is_time else column.fill_null(0)
    return states
