"""What serves, beside what came true: the champion's predictions of the recent time are held against what it was judged to be.

`findings` is pure. What it finds is appended to `lake.gold.model_watch`, a row for each metric.
"""

import json
import sys
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa

from headrace.dead_letter import Unavailable
from headrace.lake import LakeSettings, load_catalog
from ml.errors import BadData, BadScenario, Mendable
from ml.gate import Check
from ml.measure import Fit, Histogram, drift, fit
from ml.registry import CARD_FILE, REFERENCES_FILE, Registry, Version
from ml.scenario import SCORE, Scenario, Watch, moment

TRUTH, KEPT = "lake.gold.prediction_truth", "gold.model_watch"
_NUMBERS = (SCORE, "truth", "quantity", "amount_usd")  # of a prediction: truth is null until it is known
_MOST_ROWS = 200_000  # of a window; more are a sample
_SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("us", "UTC")),
        *((name, pa.string()) for name in ("model", "version", "metric")),
        *((name, pa.float64()) for name in ("value", "bound")),
        ("broken", pa.bool_()),
    ]
)


class NotWatched(Mendable):
    """What was predicted cannot be read, or what was found cannot be kept."""


class Judged(NamedTuple):
    """What the champion was on held-out time: its figures, and how its features and its scores were distributed."""

    fit: Fit
    references: Mapping[str, Histogram]


def findings(rows: pd.DataFrame, held: Judged, bounds: Watch, horizon: timedelta, until: datetime) -> list[Check]:
    """What is to be said of predictions as of `until`: nothing of a part that has fewer rows than `bounds.least_rows`.

    `rows` have `predicted_at` (UTC), `score`, `truth` (1, 0, NaN while unknown) and the numbers of their events. That something came true
    is known at once, that it did not only when the `horizon` is over: so the truth is looked at of predictions whose horizon was over at
    `until`, and the drift of the youngest ones.
    """
    at, window = pd.to_datetime(rows["predicted_at"], utc=True), timedelta(days=bounds.days)
    told = rows[(at >= until - horizon - window) & (at < until - horizon) & rows["truth"].notna()]
    young = rows[(at >= until - window) & (at < until)]
    checks = []
    if len(told) >= bounds.least_rows:
        now = fit(told["truth"].to_numpy(np.float64), told[SCORE].to_numpy(np.float64))
        checks += [
            Check("AUC", now.auc, ">", held.fit.auc - bounds.most_auc_loss),
            Check("log loss", now.log_loss, "<=", held.fit.log_loss * (1 + bounds.most_log_loss_gain)),
        ]
    if len(young) >= bounds.least_rows:
        found = drift(held.references, {name: young[name].to_numpy(np.float64) for name in bounds.stable})
        checks += [Check(f"drift of {name}", value, "<=", bounds.most_drift) for name, value in found.items()]
    return checks


def watch(scenario: Scenario, env: Mapping[str, str], url: str, *, until: date | None = None, rows: Path | None = None) -> dict[str, Any]:
    """Look at the champion's predictions as of the beginning of `until` (the day after the newest one), keep and tell what is found.

    `rows`: a Parquet file in the form of `lake.gold.prediction_truth`, in place of that table. Raises NotWatched, RegistryError, BadData,
    BadScenario.
    """
    bounds = _bounds(scenario)
    with Registry(url) as registry:
        champion = registry.champion(scenario.name)
        if champion is None:
            raise BadData(f"{scenario.name}: no model is champion: `headrace models list` shows them, `headrace models promote` makes one")
        card = json.loads(registry.file(champion, CARD_FILE))
        references = json.loads(registry.file(champion, REFERENCES_FILE))
    held = msgspec.convert((card["reports"]["model"]["overall"], references["judged"]), Judged)
    back = scenario.horizon + timedelta(days=bounds.days)
    found, at = _of_file(rows, champion, back, until) if rows else _of_lake(env, champion, back, until)
    checks = findings(found, held, bounds, scenario.horizon, at)
    _keep(env, champion, at, checks)
    broken = [str(check) for check in checks if not check.passed]
    for problem in broken:
        print(f"ml watch: {champion.model} {champion.number} breaks its bound: {problem}", file=sys.stderr)
    return {
        "model": champion.model,
        "version": champion.number,
        "until": at,
        "rows": len(found),
        "with_truth": int(found["truth"].notna().sum()),
        "found": {check.name: round(check.value, 4) for check in checks},
        "broken": broken,
    }


def _bounds(scenario: Scenario) -> Watch:
    if scenario.watch is None:
        raise BadScenario(f"{scenario.name}: it has no part `watch`: nothing is said of what its predictions have to keep")
    if unknown := sorted({*scenario.watch.stable} - {*_NUMBERS} | {*scenario.watch.stable} & {"truth"}):
        known = ", ".join(name for name in _NUMBERS if name != "truth")
        raise BadScenario(f"{scenario.name}: `$.watch.stable`: {TRUTH} has no {', '.join(unknown)}; it has {known}")
    return scenario.watch


def _of_file(path: Path, of: Version, back: timedelta, until: date | None) -> tuple[pd.DataFrame, datetime]:
    try:
        rows = pd.read_parquet(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise NotWatched(f"{path}: {' '.join(str(error).split())[:300]}") from None
    rows = rows[rows["model"] == of.model]
    at = pd.to_datetime(rows["predicted_at"], utc=True)
    end = _end(until, at.max() if len(rows) else None)
    return rows[(rows["model_version"] == of.called) & (at >= end - back) & (at < end)], end


def _of_lake(env: Mapping[str, str], of: Version, back: timedelta, until: date | None) -> tuple[pd.DataFrame, datetime]:
    """The predictions of a version, and the moment up to which. Asked of Trino."""
    import requests
    from trino.exceptions import Error

    from headrace.trino import connection

    if missing := [name for name in ("TRINO_URL", "TRINO_USER") if not env.get(name)]:
        raise NotWatched(f"not set: {', '.join(missing)} (see .env.example)")
    try:
        with connection(env, "watch") as opened:
            cursor = opened.cursor()
            cursor.execute(f"SELECT max(predicted_at) FROM {TRUTH} WHERE model = ?", [of.model])
            [[newest]] = cursor.fetchall()
            end = _end(until, newest)
            # The order is of a hash: where there are more rows than are taken, they are a sample, the same each time.
            cursor.execute(
                f"SELECT predicted_at, {', '.join(f'CAST({name} AS double)' for name in _NUMBERS)} FROM {TRUTH}"
                " WHERE model = ? AND model_version = ? AND predicted_at >= ? AND predicted_at < ?"
                f" ORDER BY xxhash64(to_utf8(event_id)) LIMIT {_MOST_ROWS}",
                [of.model, of.called, end - back, end],
            )
            rows = cursor.fetchall()
    except (Error, requests.RequestException) as error:
        raise NotWatched(f"Trino at {env['TRINO_URL']}: {' '.join(str(error).split())[:300]}") from None
    return pd.DataFrame(rows, columns=["predicted_at", *_NUMBERS]), end


def _end(until: date | None, newest: datetime | None) -> datetime:
    """The beginning of `until`; else of the day after the newest prediction: replayed events are of another time than the clock."""
    if until:
        return moment(until)
    newest = (newest or datetime.now(UTC)).astimezone(UTC)
    return moment(newest.date() + timedelta(days=1))


def _keep(env: Mapping[str, str], of: Version, at: datetime, checks: list[Check]) -> None:
    """Append what was found in one commit."""
    if not checks:
        return
    told = {"at": at, "model": of.model, "version": of.called}
    rows = [{**told, "metric": each.name, "value": each.value, "bound": each.bound, "broken": not each.passed} for each in checks]
    try:
        catalog = load_catalog(LakeSettings.of(env))
        catalog.create_namespace_if_not_exists(KEPT.partition(".")[0])
        catalog.create_table_if_not_exists(KEPT, _SCHEMA).append(pa.Table.from_pylist(rows, _SCHEMA))
    except (Unavailable, OSError, KeyError) as error:
        raise NotWatched(f"lake.{KEPT}: {' '.join(str(error).split())[:300]}: what was found is not kept") from None
