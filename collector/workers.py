"""Several workers on one machine: processes that share the ports, so that each core takes its part of the connections.

The kernel spreads connections over the workers (SO_REUSEPORT). This process starts them, starts again what crashes, and passes SIGTERM
on. A worker notices by the end of its standard input that this process is gone, and stops. The metrics of all are files in one folder
(prometheus_client's multiprocess mode), so any worker that is asked for /metrics answers for all.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping

import structlog
from prometheus_client import multiprocess

FLAG = "--worker"

_FIRST_PAUSE = 0.5  # seconds until a worker that crashed is started again; doubled with each crash
_LONGEST_PAUSE = 30.0
_STEADY = 60.0  # seconds after which a worker counts as sound
_METRICS = "PROMETHEUS_MULTIPROC_DIR"

_log = structlog.get_logger()


def number() -> int:
    """Which worker this process is, from 1; 0 where it is no worker of several."""
    return int(sys.argv[2]) if sys.argv[1:2] == [FLAG] else 0


def listen(host: str, port: int, setting: str, *, shared: bool, backlog: int = 0) -> socket.socket:
    """A socket that is bound, and listens where there is a backlog. Raises OSError with a sentence that names the setting."""
    try:
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        if backlog:
            bound.listen(backlog)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror} (settings BIND_HOST, {setting})") from None
    return bound


async def run(count: int, host: str, ports: Mapping[str, int]) -> int:
    """Run `count` workers until SIGTERM or SIGINT, and return the exit code: 0 where all ended well.

    `ports` are those they share, by the setting that names each. Raises OSError where one is taken.
    """
    with contextlib.ExitStack() as held:
        reserved = {setting: held.enter_context(_reserved(host, port, setting)) for setting, port in ports.items()}
        metrics = held.enter_context(tempfile.TemporaryDirectory(prefix="headrace-collector-metrics-"))
        environment = os.environ | {name: str(port) for name, port in reserved.items()} | {_METRICS: metrics}
        stop = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        _log.info("collector starts its workers", workers=count, host=host, **{name.lower(): port for name, port in reserved.items()})
        codes = await asyncio.gather(*(_keep(one, environment, stop) for one in range(1, count + 1)))
    return max(codes)


@contextlib.contextmanager
def _reserved(host: str, port: int, setting: str) -> Iterator[int]:
    """Keep a port for the workers; give its number.

    At first it is asked for alone: another program that shares its ports too would otherwise get half of our connections.
    """
    with listen(host, port, setting, shared=False, backlog=1) as alone:
        found = int(alone.getsockname()[1])
    with listen(host, found, setting, shared=True):  # it does not listen: no connection comes here
        yield found


async def _keep(one: int, environment: Mapping[str, str], stop: asyncio.Event) -> int:
    """Keep a worker running; returns the exit code of the last after `stop`, 0 or 1."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.create_task(stop.wait())
    pause = _FIRST_PAUSE
    while True:
        started = loop.time()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "collector.main", FLAG, str(one)), stdin=asyncio.subprocess.PIPE, env=environment
        )
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            return int(await ended not in (0, -signal.SIGTERM))  # by the signal: it had not begun to serve
        pause = _FIRST_PAUSE if loop.time() - started > _STEADY else min(2 * pause, _LONGEST_PAUSE)
        _log.error("a worker ended and is started again", worker=one, code=await ended, in_seconds=pause)
        multiprocess.mark_process_dead(process.pid, environment[_METRICS])  # type: ignore[no-untyped-call]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(stopping), pause)
            return 0


def on_orphaned(stop: asyncio.Event) -> None:
    """Set `stop` once the process that started this worker is gone."""

    def closed() -> None:
        if not os.read(0, 1024):
            asyncio.get_running_loop().remove_reader(0)
            stop.set()

    asyncio.get_running_loop().add_reader(0, closed)
