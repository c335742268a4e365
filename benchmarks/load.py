"""Load on loopback, bounded in time: HTTP by wrk, gRPC calls by ghz, a gRPC stream by a client of our own."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import grpc.aio

from benchmarks import tools

_LUA = """
local bodies, n = {}, 0
init = function(args)
  for i = 0, %d do
    local file = io.open("%s" .. i, "rb")
    bodies[#bodies + 1] = wrk.format("POST", nil, wrk.headers, file:read("*a"))
    file:close()
  end
end
request = function() n = n %% #bodies + 1; return bodies[n] end
"""
_WINDOW = 4  # requests of a stream that wait for their acknowledgement


class Load(NamedTuple):
    """What came of a load: requests answered well, seconds, and the median and the 99th percentile of their latency in ms."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float


def http(url: str, headers: dict[str, str], bodies: Sequence[bytes], connections: int, seconds: int, folder: Path) -> Load:
    """POST `bodies` in turn. Raises RuntimeError where an answer was not 2xx."""
    for number, body in enumerate(bodies):
        (folder / f"body-{number}").write_bytes(body)
    script = folder / "load.lua"
    script.write_text(_LUA % (len(bodies) - 1, folder / "body-"))
    command = [tools.wrk(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", str(script), url]
    for header in headers.items():
        command += ["-H", ": ".join(header)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said or "\n  0 requests" in said:
        raise RuntimeError(f"not every request was answered well:\n{said}")
    requests, took = re.search(r"(\d+) requests in ([\d.]+)s", said).groups()  # type: ignore[union-attr]
    return Load(int(requests), float(took), _percentile(said, 50), _percentile(said, 99))


def _percentile(said: str, which: int) -> float:
    value, unit = re.search(rf"{which}%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def grpc_calls(target: str, method: str, key: str, request: bytes, concurrency: int, seconds: int, folder: Path) -> Load:
    """Call a unary method (known by reflection). Raises RuntimeError where a call failed."""
    file = folder / "request.bin"
    file.write_bytes(request)
    command = [str(tools.ghz()), "--insecure", "--call", method, "-B", str(file), "-m", json.dumps({"authorization": f"Bearer {key}"})]
    command += ["-c", str(concurrency), "--connections", str(min(concurrency, 8)), "-z", f"{seconds}s", "--duration-stop", "wait"]
    said = json.loads(subprocess.run([*command, "-O", "json", target], capture_output=True, text=True, check=True).stdout)
    if set(said["statusCodeDistribution"]) != {"OK"}:
        raise RuntimeError(f"not every call was answered well: {said['statusCodeDistribution']}")
    latency = {row["percentage"]: row["latency"] / 1e6 for row in said["latencyDistribution"]}
    return Load(said["count"], said["total"] / 1e9, latency[50], latency[99])


def grpc_streams(target: str, method: str, key: str, requests: Sequence[bytes], streams: int, seconds: int) -> Load:
    """Send `requests` in turn over bidirectional streams. Raises grpc.RpcError where one breaks."""
    return asyncio.run(_streams(target, method, key, requests, streams, seconds))


async def _streams(target: str, method: str, key: str, requests: Sequence[bytes], streams: int, seconds: int) -> Load:
    latencies: list[float] = []
    start = time.perf_counter()

    async def one(turn: int) -> None:
        async with grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method)(metadata=(("authorization", f"Bearer {key}"),))
            sent: asyncio.Queue[float] = asyncio.Queue()
            for _ in range(_WINDOW):
                sent.put_nowait(time.perf_counter())
                await call.write(requests[turn % len(requests)])
            while not sent.empty():
                await call.read()
                latencies.append(time.perf_counter() - sent.get_nowait())
                if time.perf_counter() - start < seconds:
                    turn += 1
                    sent.put_nowait(time.perf_counter())
                    await call.write(requests[turn % len(requests)])
            await call.done_writing()

    await asyncio.gather(*(one(turn) for turn in range(streams)))
    took = time.perf_counter() - start
    latencies.sort()
    return Load(len(latencies), took, latencies[len(latencies) // 2] * 1000, latencies[int(len(latencies) * 0.99)] * 1000)
