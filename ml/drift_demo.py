"""`make demo-drift`: the world changes, somebody is told, a new model is made, judged and promoted, and what is served is good again.

Real purchases (CDNOW), on which a change is planted (`ml/examples/planted.py`, `turned`), with PostgreSQL, MinIO, MLflow and the
enrichment API as processes of their own. Nothing knows the future: each step gets a file of what was bought until its day.
"""

import itertools
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.lake import LakeSettings, load_catalog
from ml.demo import ROOT, Demo, Unexpected, show
from ml.examples.planted import Bought, turned

HORIZON = timedelta(days=21)
FIRST = date(1997, 9, 5)  # the first model is made of what is known then, and serves from then on
BEFORE = (FIRST, date(1997, 10, 5))
CHANGE = date(1997, 11, 1)
DURING = (CHANGE, date(1997, 12, 1))
RENEWED = date(1998, 3, 24)  # the second one
AFTER = (RENEWED, date(1998, 4, 24))
_WEEK = timedelta(days=7)
_AT_ONCE = 500  # events of a request
_PATIENCE = 120  # seconds until the API has seen something
_PREDICTIONS = pa.schema(
    [
        *((name, pa.string()) for name in ("source", "event_id", "model", "model_version", "variant", "customer_id")),
        ("predicted_at", pa.timestamp("us", "UTC")),
        *((name, pa.float64()) for name in ("score", "truth", "quantity", "amount_usd")),
    ]
)


def read(path: Path) -> list[Bought]:
    """The purchases of CDNOW's file, by day."""
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    found = [Bought(who, datetime.strptime(day, "%Y%m%d").date(), int(items), float(dollars)) for who, day, items, dollars in lines]
    return sorted(found, key=lambda each: each.day)


def written(purchases: Sequence[Bought], until: date, path: Path) -> str:
    """The file of what was bought before `until`."""
    lines = (f"{each.customer} {each.day:%Y%m%d} {each.quantity} {each.amount:.2f}" for each in purchases if each.day < until)
    path.write_text("\n".join(["customer_id date number_of_cds dollar_value", *lines]) + "\n")
    return str(path)


def with_truth(predictions: Sequence[dict[str, Any]], purchases: Sequence[Bought], until: date) -> list[dict[str, Any]]:
    """What came true as of `until`, as `lake.gold.prediction_truth` says it: 1 for who bought again within the horizon (on a later day), 0
    once it is over, null before."""
    days: dict[str, list[date]] = {}
    for each in purchases:
        if each.day < until:
            days.setdefault(each.customer, []).append(each.day)

    def truth(of: dict[str, Any]) -> float | None:
        at = of["predicted_at"].date()
        if any(at < day <= at + HORIZON for day in days.get(of["customer_id"], [])):
            return 1.0
        return 0.0 if at + HORIZON < until else None

    return [{**each, "truth": truth(each)} for each in predictions]


def states(purchases: Sequence[Bought], until: date) -> pa.Table:
    """The rows of `lake.gold.customer_features` as of the beginning of `until`."""
    found: dict[str, list[Any]] = {}
    for each in purchases:
        if each.day >= until:
            break
        of = found.setdefault(each.customer, [each.day, each.day, 0, 0, 0.0])
        of[1:] = [each.day, of[2] + 1, of[3] + each.quantity, of[4] + each.amount]
    first, last, frequency, quantity, amount = zip(*found.values(), strict=True)
    moments = [pa.array(days, pa.date32()).cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC")) for days in (first, last)]
    names = ("source", "customer_id", "first_purchase_at", "last_purchase_at", "frequency", "quantity_total", "monetary_total_usd")
    numbers = [pa.array(frequency, pa.int64()), pa.array(quantity, pa.int64()), pa.array(amount, pa.float64())]
    return pa.Table.from_arrays([pa.array(["cdnow"] * len(found)), pa.array(list(found)), *moments, *numbers], names)


class Api:
    """The enrichment API as a process, and what it says."""

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self.url = demo.env["ENRICHMENT_API_URL"]
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self._catalog = load_catalog(LakeSettings.of(demo.env))
        self._catalog.create_namespace_if_not_exists("gold")

    @contextmanager
    def running(self) -> Iterator[None]:
        """From ready to ended. Raises Unexpected."""
        fast = {"ENRICHMENT_API_REFRESH_SECONDS": "0.2", "ENRICHMENT_API_RELEASE_SECONDS": "0.2"}
        log = self._demo.folder / "enrichment-api.log"
        with log.open("wb") as stream:
            command = [sys.executable, "-m", "enrichment_api.main"]
            process = subprocess.Popen(command, cwd=ROOT, env={**self._demo.env, **fast}, stdout=stream, stderr=stream)
        try:
            wait(lambda: process.poll() is not None or self._answers(), "the enrichment API does not answer")
            if process.poll() is not None:
                raise Unexpected(f"the enrichment API ended: {log.read_text()[-500:]}")
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _answers(self) -> bool:
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def version(self) -> str:
        """What serves."""
        return str(self.http.get("/readyz").json()["version"])

    def knows(self, customers: pa.Table) -> None:
        """Let the lake have these states, and wait until the API has read them. Raises Unexpected."""
        began = time.time()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Delete operation did not match any records")  # of an empty table
            self._catalog.create_table_if_not_exists("gold.customer_features", customers.schema).overwrite(customers)
        wait(lambda: self._read_at() > began, "the enrichment API does not read lake.gold.customer_features")

    def _read_at(self) -> float:
        name = "enrichment_api_customer_features_loaded_timestamp_seconds "
        lines = self.http.get("/metrics").text.splitlines()
        return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0.0)

    def scored(self, events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The score of each event. Raises Unexpected where one has none."""
        answer = self.http.post("/v1/score", json={"events": list(events)})
        found = answer.json().get("enrichments", []) if answer.status_code == 200 else []
        if len(found) != len(events) or not all("repurchase" in each for each in found):
            raise Unexpected(f"the enrichment API answers {answer.status_code}: {answer.text[:200]}")
        return [each["repurchase"] for each in found]


class Posting:
    """Somebody who asks for scores without a pause: what was answered, by version, and how many requests failed."""

    def __init__(self, api: Api) -> None:
        self.by_version: Counter[str] = Counter()
        self.failed: list[str] = []
        self._api, self._stop = api, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Posting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(base_url=self._api.url, timeout=60) as http:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                asked = event(Bought(f"{number % 1000:05d}", RENEWED, 1, 9.99), number)
                try:
                    answer = http.post("/v1/score", json={"events": [asked]}).raise_for_status()
                    self.by_version[answer.json()["enrichments"][0]["repurchase"]["version"]] += 1
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    self.failed.append(repr(error))


def event(of: Bought, number: int) -> dict[str, Any]:
    """A purchase as the API is asked for it."""
    about = {"id": f"cdnow-{number:06d}", "source": "cdnow", "type": "purchase", "time": f"{of.day}T00:00:00Z", "subject": of.customer}
    return {**about, "data": {"quantity": of.quantity, "amount_usd": of.amount}}


def served(api: Api, purchases: Sequence[Bought], span: tuple[date, date]) -> list[dict[str, Any]]:
    """The purchases of a time, scored week by week by what was known when the week began: a row for each prediction."""
    predictions: list[dict[str, Any]] = []
    begins = span[0]
    while begins < span[1]:
        ends = min(begins + _WEEK, span[1])
        api.knows(states(purchases, begins))
        week = [(number, each) for number, each in enumerate(purchases, 1) if begins <= each.day < ends]
        for at in range(0, len(week), _AT_ONCE):
            part = week[at : at + _AT_ONCE]
            answers = api.scored([event(each, number) for number, each in part])
            predictions += [_row(number, each, answer) for (number, each), answer in zip(part, answers, strict=True)]
        begins = ends
    return predictions


def _row(number: int, of: Bought, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": "cdnow",
        "event_id": f"cdnow-{number:06d}",
        "model": answer["model"],
        "model_version": answer["version"],
        "variant": answer["variant"],
        "customer_id": of.customer,
        "predicted_at": datetime(of.day.year, of.day.month, of.day.day, tzinfo=UTC),
        "score": answer["score"],
        "quantity": float(of.quantity),
        "amount_usd": of.amount,
    }


def wait(holds: Callable[[], object], otherwise: str) -> None:
    """Wait until it holds. Raises Unexpected after a while."""
    ends = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > ends:
            raise Unexpected(otherwise)
        time.sleep(0.1)


class Loop:
    """The steps of the demonstration."""

    def __init__(self, demo: Demo) -> None:
        self.demo, self.api = demo, Api(demo)
        self.purchases = turned(read(ROOT / demo.env["ENRICHMENT_API_DATA_FILE"]), CHANGE)

    def scenario(self, name: str, known_until: date) -> str:
        """The scenario `repurchase` of three weeks, on what was known on a day."""
        file = written(self.purchases, known_until, self.demo.folder / f"{name}.txt")
        return self.demo.scenario(
            name,
            features="ml.examples.planted:Soon",
            horizon_days=HORIZON.days,
            settings={"ENRICHMENT_API_DATA_FILE": file},
            split={
                "learn_from": date(1997, 4, 15),
                "tune_from": date(1997, 6, 1),
                "test_from": date(1997, 7, 15),
                "test_until": date(1997, 8, 15),
            },
            baseline={"columns": ["recency_days"]},  # of two months' rows, trees do not beat frequency and recency together
            tuning={"trials": 8, "seconds": 120},
            bounds={"stable": ["quantity"], "most_segment_loss": 0.1},
            watch={"days": 30, "stable": ["score", "quantity", "amount_usd"]},
        )

    def made(self, name: str, known_until: date, *more: str) -> str:
        """A model, trained, judged and registered: its number. Raises Unexpected where the gate kept it out."""
        began, run = time.monotonic(), str(self.demo.folder / f"run-{name}")
        prepared = self.demo.step("prepare", "--scenario", self.scenario(name, known_until), "--run", run, *more)
        trained = self.demo.step("train", "--run", run, "--unit", "repurchase")
        judged = self.demo.step("judge", "--run", run, "--unit", "repurchase")
        done = self.demo.step("register", "--run", run, "--unit", "repurchase")
        if done["gate"] != "passed":
            raise Unexpected(f"the gate kept the model out: {'; '.join(done['reasons'])}")
        split = prepared["split"]
        what = f"version {done['version']} learnt from {split['learn_from']}, judged from {split['test_from']} to {split['test_until']}"
        what += f" against {', '.join(judged['against'])}: AUC {trained['auc']:.3f}, log loss {trained['log_loss']:.3f}; it passed"
        self.demo.tell(f"the {name} model", what, began)
        return str(done["version"])

    def watched(self, name: str, span: tuple[date, date], scenario: str) -> dict[str, Any]:
        """Serve the events of a time, wait for what comes true, and look: what `ml watch` says."""
        began, ends = time.monotonic(), span[1] + HORIZON
        rows = with_truth(served(self.api, self.purchases, span), self.purchases, ends)
        file = self.demo.folder / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, _PREDICTIONS), file)
        said = self.demo.step("watch", "--scenario", scenario, "--rows", str(file), "--until", str(ends))
        figures = said["found"]
        if not {"AUC", "log loss"} <= set(figures):
            raise Unexpected(f"{name}: too few predictions with truth: {said['with_truth']} of {said['rows']}")
        what = f"{len(rows):,} events served from {span[0]} on: AUC {figures['AUC']:.3f}, log loss {figures['log loss']:.3f}; "
        self.demo.tell(name, what + ("; ".join(said["broken"]) or "all well"), began)
        return said


def live(demo: Demo) -> None:
    """All of it. Raises Unexpected."""
    loop = Loop(demo)
    api = loop.api
    first = loop.made("first", FIRST)
    began = time.monotonic()
    demo.tell("promotion", demo.headrace("promote", "repurchase", first, "--why", "make demo-drift: the first one"), began)
    with api.running():
        one = api.version
        before = loop.watched("before", BEFORE, str(demo.folder / "first.yaml"))
        if before["broken"]:
            raise Unexpected(f"before anything changed: {'; '.join(before['broken'])}")
        during = loop.watched("during", DURING, str(demo.folder / "first.yaml"))
        if not any(each.startswith("AUC ") for each in during["broken"]):
            raise Unexpected(f"the change was not noticed: AUC {during['found']['AUC']}")
        second = loop.made("second", RENEWED, "--until", "newest")
        began = time.monotonic()
        with Posting(api) as posting:
            wait(lambda: posting.by_version[one] >= 50, "nothing is served")
            said = demo.headrace("promote", "repurchase", second, "--why", "make demo-drift: the customers have changed")
            wait(lambda: posting.by_version.total() - posting.by_version[one] >= 50, "the new version is not served")
        if posting.failed:
            raise Unexpected(f"{len(posting.failed)} requests failed, the first: {posting.failed[0]}")
        counts = ", ".join(f"{number} by {version}" for version, number in posting.by_version.items())
        demo.tell("promotion under load", f"{said} ({counts}; 0 failed)", began)
        after = loop.watched("after", AFTER, str(demo.folder / "second.yaml"))
        if api.version == one or after["broken"]:
            raise Unexpected(f"it has not recovered: {'; '.join(after['broken']) or 'the old version serves'}")
    for name in ("AUC", "log loss"):
        values = " -> ".join(f"{said['found'][name]:.3f}" for said in (before, during, after))
        demo.tell(name, f"before, during, after: {values}", time.monotonic())
    if after["found"]["AUC"] <= during["found"]["AUC"] or after["found"]["log loss"] >= during["found"]["log loss"]:
        raise Unexpected("the live figures have not recovered")


if __name__ == "__main__":
    sys.exit(show("demo-drift", "repurchase", "4300", live))
