"""Load on loopback, bounded in time: HTTP by wrk, gRPC calls by ghz, a gRPC stream by `streams`."""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import tools
from tests.collector_real_kafka import ROOT

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
_PROTO = ROOT / "schemas" / "collector" / "v1" / "collector.proto"
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
    """Call a unary method. Raises RuntimeError where a call failed."""
    file = folder / "request.bin"
    file.write_bytes(request)
    command = [
        str(tools.ghz()),
        "--insecure",
        "--proto",
        str(_PROTO),
        "--call",
        method,
        "-B",
        str(file),
        "-m",
        json.dumps({"authorization": f"Bearer {key}"}),
    ]
    command += ["-c", str(concurrency), "--connections", str(min(concurrency, 8)), "-z", f"{seconds}s", "--duration-stop", "wait"]
    done = subprocess.run([*command, "-O", "json", target], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ghz failed: {done.stderr}")
    said = json.loads(done.stdout)
    if set(said["statusCodeDistribution"]) != {"OK"}:
        raise RuntimeError(f"not every call was answered well: {said['statusCodeDistribution']}")
    latency = {row["percentage"]: row["latency"] / 1e6 for row in said["latencyDistribution"]}
    return Load(said["count"], said["total"] / 1e9, latency[50], latency[99])


def grpc_streams(target: str, method: str, key: str, requests: Sequence[bytes], streams: int, seconds: int, folder: Path) -> Load:
    """Send `requests` in turn over bidirectional streams. Raises RuntimeError where one breaks."""
    files = [folder / f"message-{number}" for number in range(len(requests))]
    for file, request in zip(files, requests, strict=True):
        file.write_bytes(request)
    command = [str(tools.streams()), "-target", target, "-method", method, "-key", key, "-streams", str(streams)]
    command += ["-window", str(_WINDOW), "-seconds", str(seconds), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a stream broke: {done.stderr}")
    said = json.loads(done.stdout)
    return Load(int(said["requests"]), said["seconds"], said["p50_ms"], said["p99_ms"])
