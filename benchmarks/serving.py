"""Scores a second and the p99 of one event, of the enrichment API as a process of its own (no platform is needed).

    make bench-serving [ARGS="--model FOLDER --rounds 5"]

What is compared is measured in turns, within one run: the API as it is, with FastAPI doing each request, with the cache (where every
row is new, and where every row is known), and with a canary. Processor time is that of the API alone, by the kernel's account: it
hardly depends on what else the machine does, which the clock does. Goals: 15 ms p99 for one event; 20,000 events/s in batches.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

import psutil
import yaml

from benchmarks import figures
from enricher.connection import Connection
from tests.enrichment_api_process import enrichment_api

_BATCH = 1000
_CUSTOMERS = 50_000
_CLIENTS = 2  # as the enricher: one request is on its way while the other is scored


@dataclass
class Kind:
    """A way to serve, and what was measured of it, one element a round."""

    name: str
    url: str
    process: psutil.Process
    known: bool  # whether the same events come again and again
    one_p50_ms: list[float] = field(default_factory=list)
    one_p99_ms: list[float] = field(default_factory=list)
    one_cpu_us: list[float] = field(default_factory=list)
    events_per_second: list[float] = field(default_factory=list)
    events_per_cpu_second: list[float] = field(default_factory=list)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--model", type=Path, help="folder of a model (else one is trained on simulated purchases)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="of one event, in a round")
    parser.add_argument("--batches", type=int, default=40, help=f"of {_BATCH} events for each of {_CLIENTS} clients, in a round")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        kinds = list(_kinds(Path(folder), args.model, stack))
        for number in range(args.rounds + 1):
            for kind in kinds:
                if number == 0:
                    _singles(kind, 50)  # warm
                    continue
                _measure(kind, args.requests, args.batches)
            print(f"round {number} of {args.rounds}", file=sys.stderr)
        found = _found(kinds)
        figures.show(found)
        looked_up = _lookups(Path(folder))
    figures.show(looked_up)
    figures.keep("serving", found | looked_up)


def _kinds(folder: Path, model: Path | None, stack: ExitStack) -> Iterator[Kind]:
    if model is None:
        from enrichment_api.train import train
        from tests.unit.test_train import write_purchases

        model = folder / "model"
        train(write_purchases(folder / "purchases.txt"), model)
    canary = {"strategy": "canary", "champion": str(model.absolute()), "challenger": str(model.absolute()), "share": 0.05}
    bounds = {"p99_ms": 1e6}
    for name, known, settings, plain in (
        ("plain", False, {}, False),
        ("fastapi", False, {}, True),
        ("cache_new", False, {"CACHE_ROWS": "100000"}, False),
        ("cache_known", True, {"CACHE_ROWS": "100000"}, False),
        ("canary", False, {}, False),
    ):
        place = folder / name
        place.mkdir()
        (place / "release.yaml").write_text(yaml.safe_dump({"repurchase": canary | {"bounds": bounds}} if name == "canary" else {}))
        more = {"MODEL_DIR": str(model.absolute()), "RELEASE_FILE": str(place / "release.yaml"), **settings}
        module = "benchmarks.serving_by_fastapi" if plain else "enrichment_api.main"
        url, process = stack.enter_context(enrichment_api(place, module=module, **more))
        yield Kind(name, url, psutil.Process(process.pid), known)


def _measure(kind: Kind, requests: int, batches: int) -> None:
    with _processor(kind) as spent:
        times = sorted(_singles(kind, requests))
    kind.one_p50_ms.append(1000 * times[len(times) // 2])
    kind.one_p99_ms.append(1000 * times[-max(1, len(times) // 100)])
    kind.one_cpu_us.append(1e6 * spent[0] / requests)
    with _processor(kind) as spent:
        context = multiprocessing.get_context("spawn")
        with context.Pool(_CLIENTS) as pool:
            seconds = max(pool.starmap(_batches, [(kind.url, kind.known, batches, number) for number in range(_CLIENTS)]))
    kind.events_per_second.append(_CLIENTS * batches * _BATCH / seconds)
    kind.events_per_cpu_second.append(_CLIENTS * batches * _BATCH / spent[0])


@contextmanager
def _processor(kind: Kind) -> Iterator[list[float]]:
    """The seconds of processors that the API takes meanwhile."""
    spent = [0.0]
    before = kind.process.cpu_times()
    yield spent
    after = kind.process.cpu_times()
    spent[0] = after.user + after.system - before.user - before.system


def _event(number: int) -> dict[str, object]:
    data = {"quantity": 1 + number % 7, "amount_usd": (number % 1_000_003) / 100}
    who = f"c-{number % 50_000}"
    return {"id": f"e-{number}", "source": "shop", "type": "purchase", "time": "2026-11-22T00:00:00.000Z", "subject": who, "data": data}


def _bodies(known: bool, size: int, wanted: int, start: int = 0) -> list[bytes]:
    """Requests of `size` events, made before the clock runs; where they are known, all the same."""
    numbers = count(start)
    made = [json.dumps({"events": [_event(next(numbers)) for _ in range(size)]}).encode() for _ in range(1 if known else wanted)]
    return made * wanted if known else made


def _singles(kind: Kind, requests: int) -> Sequence[float]:
    """Seconds of each request of one event, on one connection, one after the other."""
    connection, times = Connection(kind.url), []
    for body in _bodies(kind.known, 1, requests, start=time.monotonic_ns() % 1_000_000):
        began = time.perf_counter()
        _ask(connection, body)
        times.append(time.perf_counter() - began)
    return times


def _batches(url: str, known: bool, batches: int, client: int) -> float:
    """Seconds for so many batches by one client, in a process of its own."""
    connection = Connection(url)
    bodies = _bodies(known, _BATCH, batches, start=os.getpid() * 1_000_000 + client)
    began = time.perf_counter()
    for body in bodies:
        _ask(connection, body)
    return time.perf_counter() - began


def _ask(connection: Connection, body: bytes) -> None:
    status, answer = connection.post("/v1/score", body, 10_000_000, time.monotonic() + 60)
    if status != 200:
        raise SystemExit(f"headrace: the API answered {status}: {answer[:300]!r}")


def _found(kinds: Sequence[Kind]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind in kinds:
        found |= {
            f"{kind.name}_one_event_p50_ms": round(median(kind.one_p50_ms), 2),
            f"{kind.name}_one_event_p99_ms": round(median(kind.one_p99_ms), 2),
            f"{kind.name}_one_event_cpu_us": round(median(kind.one_cpu_us), 1),
            f"{kind.name}_events_per_second": round(median(kind.events_per_second)),
            f"{kind.name}_events_per_cpu_second": round(median(kind.events_per_cpu_second)),
        }
    plain = kinds[0]
    for kind in kinds[1:]:
        found[f"{kind.name}_events_per_cpu_second_to_plain"] = _ratio(kind.events_per_cpu_second, plain.events_per_cpu_second)
        found[f"{kind.name}_one_event_cpu_to_plain"] = _ratio(kind.one_cpu_us, plain.one_cpu_us)
    return found


def _lookups(folder: Path) -> dict[str, float]:
    """What it takes to look up customers, in memory and in the online store (a Redis of its own), in turns."""
    import numpy as np

    from enrichment_api.customers import Customers
    from enrichment_api.online import OnlineCopy, OnlineCustomers, store
    from headrace.features import STATE
    from tests.redis_process import redis_server

    keys = [("shop", f"c-{number}") for number in range(_CUSTOMERS)]
    states = np.zeros(len(keys), STATE)
    states["frequency"] = np.arange(len(keys))
    states["first_purchase_at"] = states["last_purchase_at"] = np.datetime64("2026-01-01")
    found: dict[str, float] = {}
    with redis_server(folder / "redis") as (url, _):
        online = OnlineCustomers(store(url, 10))
        began = time.perf_counter()
        OnlineCopy(store(url, 60), online).take(lambda: [(keys, states)], "benchmark")
        found["redis_customers_written_per_second"] = round(len(keys) / (time.perf_counter() - began))
        memory = Customers.of([(keys, states)])
        for size, times in ((1, 5_000), (_BATCH, 300)):
            spent: dict[str, list[float]] = {"memory": [], "redis": []}
            for turn in range(times):
                wanted = [keys[(turn * 7919 + place * 31) % len(keys)] for place in range(size)]
                for name, customers in (("memory", memory), ("redis", online)):
                    began = time.perf_counter()
                    got = customers.states(wanted)
                    spent[name].append(time.perf_counter() - began)
                    if got["frequency"][0] != int(wanted[0][1][2:]):
                        raise SystemExit(f"headrace: the {name} does not give what was written")
            for name, seconds in spent.items():
                found[f"{name}_lookup_of_{size}_p50_ms"] = round(1000 * median(seconds), 3)
                found[f"{name}_lookup_of_{size}_p99_ms"] = round(1000 * sorted(seconds)[-len(seconds) // 100], 3)
    return found


def _ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """The middle of the rounds' ratios: both were measured one after the other in each."""
    return round(median(one / other for one, other in zip(of, to, strict=True)), 3)


if __name__ == "__main__":
    main()
